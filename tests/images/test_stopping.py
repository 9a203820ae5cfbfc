"""A container that is stopped or killed, and started again."""

from __future__ import annotations

import json

import pytest

from l2i.run.store import connect, locate
from tests.images.conftest import Place
from tests.images.test_running import runs_of

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

# Long enough to be met at work on any machine.
_WORDS = ("train", "--config", "small.toml", "-o", "classifier.epochs=30", "-o", "output.clips=1")


def test_stopped_and_killed_it_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker stop` ends it by SIGTERM (137 would say that it had to be killed), the run is
    KILLED; after `docker kill` it is found dead; and the same command ends the same run, no
    epoch done twice."""
    first = place.start(*_WORDS)
    first.wait_for(r"Run demo-")
    _wait_for_epoch(place)
    first.engine("stop", first.id)
    assert first.end()[0] == 143
    (run,) = runs_of(place, monkeypatch)
    assert (run.status, run.tags["l2i.error"]) == ("KILLED", "Stopped by SIGTERM.")
    client = connect(locate())
    done = [m.step for m in client.get_metric_history(run.id, "classifier/loss")]
    assert done == list(range(1, len(done) + 1))

    second = place.start(*_WORDS)
    second.wait_for("Resuming demo-")
    second.engine("kill", second.id)
    assert second.end()[0] == 137

    third = json.loads(place.run(*_WORDS, "--json").stdout)
    assert (third["run_id"], third["resumed"]) == (run.id, True)
    (run,) = runs_of(place, monkeypatch)
    assert (run.status, run.tags["l2i.resumed"]) == ("FINISHED", "2")
    steps = [m.step for m in client.get_metric_history(run.id, "classifier/loss")]
    assert steps == list(range(1, 31))


def _wait_for_epoch(place: Place) -> None:
    """Until the container has saved the state of an epoch."""
    import time

    end = time.monotonic() + 300
    while not list(place.folder.glob("mlruns/work/stages/classifier-*/state.safetensors")):
        assert time.monotonic() < end, "no epoch in five minutes"
        time.sleep(0.05)


def test_it_heeds_a_stop_before_there_is_a_run(place: Place) -> None:
    """As process 1 it would get no signal that it has no handler for: while it imports, say."""
    code = "from l2i.cli import _heed_sigterm as heed; heed(); print('there', flush=True); "
    box = place.detach(
        *("--entrypoint", "python", place.image.tag),
        *("-c", f"{code}import time; time.sleep(600)"),
    )
    box.wait_for("there")
    box.engine("stop", box.id)
    assert box.end()[0] == 143
