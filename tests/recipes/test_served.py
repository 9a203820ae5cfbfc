"""A run's model as MLflow has it: whole, without pickles, the same numbers as `l2i explain`."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from l2i.config import resolve
from l2i.recipes.publishing.explain import explain
from l2i.recipes.publishing.served import write_model
from l2i.run.progress import Progress
from tests.recipes.conftest import Finished
from tests.stores import Said

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
QUIET = Progress(quiet=True)
RATE = 11025


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """A second of two tones and some noise, at a rate that is not the model's."""
    t = np.arange(RATE) / RATE
    noise = np.random.default_rng(0).normal(0, 0.02, RATE)
    return (0.4 * np.sin(2600 * t) + 0.2 * np.sin(9000 * t * t) + noise).astype(np.float32)


@pytest.fixture
def model(single: Finished) -> Any:
    """The run's model, loaded as MLflow loads it."""
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(single.artifacts / "model"))


def _wav(path: Path, x: np.ndarray) -> Path:
    soundfile.write(path, x, RATE, subtype="FLOAT")
    return path


def test_same_numbers_as_explain(
    single: Finished, model: Any, sound: np.ndarray, tmp_path: Path
) -> None:
    """Path, bytes and samples give what `l2i explain` gives, digit for digit, sounds included."""
    path = _wav(tmp_path / "a.wav", sound)
    (told,) = explain("latest", [path], QUIET, out=tmp_path / "out", device="cpu")
    rows = [
        {"path": str(path)},
        {"bytes": path.read_bytes()},
        {"samples": sound.tolist(), "sample_rate": RATE},
    ]
    for row in rows:
        (prediction,) = model.predict(pd.DataFrame([row]), params={"explain": True})
        assert prediction["class"] == told["class"]
        assert prediction["probability"] == told["probability"]["original"]
        assert prediction["interpreter_probability"] == told["interpreter_probability"]
        assert prediction["decided"] == told["decided"]
        assert prediction["components"] == [c["component"] for c in told["components"]]
        for c in told["components"] + told["others"]:
            assert prediction["relevances"][c["component"]] == c["relevance"]
        for name, p in told["classifier"].items():
            assert prediction["probabilities"][name] == p
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        for part in ("explanation", "removal"):
            heard, rate = soundfile.read(io.BytesIO(prediction[part]), dtype="int16")
            wanted, also = soundfile.read(tmp_path / "out" / "a" / f"{part}.wav", dtype="int16")
            assert rate == also == prediction["sample_rate"]
            assert len(heard) == len(wanted)
            assert np.abs(heard.astype(int) - wanted).max() <= 1


def test_rows_do_not_depend_on_one_another(model: Any, sound: np.ndarray) -> None:
    """Together as alone, long beside short, silence among them; without `explain` no sounds."""
    rows = [
        {"samples": x.tolist(), "sample_rate": RATE}
        for x in (sound, np.tile(sound, 3), np.zeros(500, np.float32))
    ]
    together = model.predict(pd.DataFrame(rows))
    assert together == [model.predict(pd.DataFrame([row]))[0] for row in rows]
    assert all("explanation" not in prediction for prediction in together)
    assert together[2]["components"] == []
    assert set(together[2]["relevances"]) == {0.0}


def test_what_can_be_asked(single: Finished, model: Any, sound: np.ndarray, tmp_path: Path) -> None:
    """Class, threshold and number of components, as the command's options."""
    path = _wav(tmp_path / "a.wav", sound)
    (told,) = explain(
        "latest",
        [path],
        QUIET,
        class_names=["siren"],
        threshold=0.0,
        max_components=2,
        out=tmp_path / "out",
        device="cpu",
    )
    params = {"class_name": "siren", "threshold": 0.0, "max_components": 2}
    (prediction,) = model.predict(pd.DataFrame([{"path": str(path)}]), params=params)
    assert prediction["class"] == "siren"
    assert prediction["components"] == [c["component"] for c in told["components"]]
    assert 1 <= len(prediction["components"]) <= 2


@pytest.mark.parametrize(
    ("row", "params", "words"),
    [
        ({"path": "nowhere.wav"}, {}, "Row 0: There is no sound file nowhere.wav"),
        ({"bytes": b"no sound"}, {}, "Row 0: the sound cannot be decoded"),
        ({"samples": [0.1, 0.2]}, {}, "samples need their sample_rate"),
        ({"samples": [0.1, float("nan")], "sample_rate": 8000}, {}, "NaN or infinite"),
        ({"samples": [], "sample_rate": 8000}, {}, "one list of numbers"),
        ({"samples": [0.1], "sample_rate": "CD"}, {}, "samples need their sample_rate"),
        ({"sample_rate": 8000}, {}, "samples .with sample_rate.; it has none"),
        ({}, {}, "Row 0: a row has one of path, bytes and samples"),
        ({"file": "a.wav"}, {}, "Row 0: it has a column 'file'; a row has one of path, bytes"),
        ({"path": "a.wav", "label": "dog"}, {}, "it has a column 'label'"),
        ({"path": "a", "bytes": b"b"}, {}, "it has path and bytes"),
        ({"samples": [0.1], "sample_rate": 8000}, {"class_name": "siern"}, "mean 'siren'"),
        ({"samples": [0.1], "sample_rate": 8000}, {"classname": "siren"}, "mean 'class_name'"),
        ({"samples": [0.1], "sample_rate": 8000}, {"threshold": 1.5}, "threshold is 1.5"),
        ({"samples": [0.1], "sample_rate": 8000}, {"max_components": -3}, "max_components is -3"),
    ],
)
def test_what_is_wrong_is_said(
    model: Any, row: dict[str, Any], params: dict[str, Any], words: str
) -> None:
    """One sentence, of the kind that a server answers with 400."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=words) as raised:
        model.predict(pd.DataFrame([row]), params=params)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    assert raised.value.get_http_status_code() == 400


def test_rows_of_every_form(model: Any, sound: np.ndarray, tmp_path: Path) -> None:
    """As many answers as rows: paths and bytes as they are, dicts, columns, alone or several."""
    path = _wav(tmp_path / "a.wav", sound)
    row = {"samples": sound.tolist(), "sample_rate": RATE}
    (one,) = model.predict([{"path": str(path)}])
    assert one["class"] == max(one["probabilities"], key=one["probabilities"].get)
    for alone in (str(path), path.read_bytes(), {"path": str(path)}, row):
        assert model.predict(alone) == [one]
    whole = {"samples": [0, 1, 0, -1], "sample_rate": RATE}
    (other,) = model.predict(whole)
    for rows in (
        [str(path), path, {"path": str(path)}],
        np.array([str(path)] * 3),
        pd.Series([str(path)] * 3),
        pd.DataFrame({"path": [str(path)] * 3}),
    ):
        assert model.predict(rows) == [one] * 3
    # What one row has and another has not.
    assert model.predict([{"path": str(path)}, whole, row]) == [one, other, one]
    assert model.predict([]) == []
    # Without MLflow around it.
    assert model.unwrap_python_model().predict(None, [str(path), whole]) == [one, other]


@pytest.mark.parametrize(
    "rows",
    [np.zeros((1, 50)), np.zeros(50), [0.0, 0.1], 3, [["a.wav"]], pd.DataFrame(index=[0])],
)
def test_no_row(model: Any, rows: Any) -> None:
    """Samples alone, lists and numbers: what a row is, is said, and nothing is left out."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=r"Row 0: a row .*path.* bytes .*and samples"):
        model.predict(rows)


def test_the_page_loads_a_registered_model(
    single: Finished, say: Callable[..., Said], sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's lines of Python, as they stand there: one answer, with sounds."""
    import mlflow

    answer = say("train", "--config", "small.toml", "--quiet", "--register", "sounds")
    assert answer.code == 0, answer.err
    _wav(Path("my.wav"), sound)
    before = mlflow.get_tracking_uri()
    block = re.findall(r"^```python\n(import mlflow\n.*?)^```", PAGE, re.M | re.S)[0]
    *lines, last = block.splitlines()
    try:
        told: dict[str, Any] = {}
        exec("\n".join(lines), told)
        (prediction,) = eval(last, told)
    finally:
        mlflow.set_tracking_uri(before)
        Path("my.wav").unlink()
    assert prediction["class"] in prediction["probabilities"]
    assert prediction["explanation"][:4] == b"fLaC"


_ELSEWHERE = """
import json, sys
from pathlib import Path

# Not this checkout's package, and nothing that the model's requirements do not name.
sys.path[:] = [p for p in sys.path if p and not (Path(p) / "l2i").is_dir()]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
for name in ("torchaudio", "captum", "rich", "moto"):
    sys.modules[name] = None
import mlflow.pyfunc

model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(json.loads(Path(sys.argv[2]).read_text()))
import l2i

print(json.dumps({"answer": answer, "package": l2i.__file__}))
"""


def test_it_carries_its_own_code(
    single: Finished, model: Any, sound: np.ndarray, tmp_path: Path
) -> None:
    """Moved to another folder, in a process that finds no other l2i and no package that the
    model does not ask for: the same figures."""
    import shutil

    moved = tmp_path / "moved model"
    shutil.copytree(single.artifacts / "model", moved)
    rows = [{"samples": sound.tolist(), "sample_rate": RATE}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = subprocess.run(
        [sys.executable, "-P", "-c", _ELSEWHERE, str(moved), str(tmp_path / "rows.json")],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"L2I_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert Path(report["package"]).is_relative_to(moved)
    assert report["answer"] == model.predict(pd.DataFrame(rows))


def test_nothing_pickled_nothing_private(single: Finished) -> None:
    """Weights are safetensors, no file is a pickle, no path of this machine is in any text."""
    folder = single.artifacts / "model"
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert not [p for p in files if p.suffix in (".pkl", ".pt", ".pth", ".pickle", ".pyc")]
    assert not [p for p in files if p.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05", b"PK")]
    private = (str(single.folder), str(Path.home()) + "/", "/tmp/")
    for path in files:
        if path.suffix == ".safetensors" or "code" in path.relative_to(folder).parts:
            continue
        text = path.read_text(encoding="utf-8")
        assert not [word for word in private if word in text], path
    needs = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in needs)
    assert [line.partition("==")[0] for line in needs][:2] == ["mlflow", "torch"]


def test_permissions_are_the_users(single: Finished, tmp_path: Path) -> None:
    """Under umask 077 nobody else reads the model's code, whoever may read what it is a copy of."""
    before = os.umask(0o077)
    try:
        config = resolve(single.artifacts / "config.toml")
        write_model(single.artifacts / "model" / "artifacts", config, tmp_path / "model")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "model" / "code").rglob("*") if path.is_file()]
    assert (tmp_path / "model" / "code" / "l2i" / "types.py") in files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_folder_of_any_name(single: Finished, tmp_path: Path) -> None:
    """What looks like an escape in an address is a name, and no path of this machine is left."""
    here = tmp_path / "100%20x"
    shutil.copytree(single.artifacts / "model" / "artifacts", here / "bundle")
    (here / "bundle" / "config.toml").unlink()
    write_model(here / "bundle", resolve(single.artifacts / "config.toml"), here / "model")
    for name in ("classifier.safetensors", "config.toml"):
        assert (here / "model" / "artifacts" / name).is_file()
    text = (here / "model" / "MLmodel").read_text()
    assert str(tmp_path) not in text and "file:" not in text and "%" not in text


def test_signature_and_example(single: Finished, model: Any) -> None:
    """The example is an input by the signature, and the answer has the columns it names."""
    from mlflow.models import Model

    about = Model.load(str(single.artifacts / "model"))
    example = about.load_input_example(str(single.artifacts / "model"))
    (prediction,) = model.predict(example, params={"explain": True})
    assert set(prediction) == {c.name for c in about.signature.outputs.inputs}
    assert {c.name for c in about.signature.inputs.inputs} == {
        *("path", "bytes", "samples", "sample_rate")
    }


def test_the_run_knows_its_model(single: Finished) -> None:
    """The tag by which MLflow's pages show a model names the run and the folder."""
    from l2i.run.runs import resolve_run

    (told,) = json.loads(resolve_run("latest").tags["mlflow.log-model.history"])
    assert told["artifact_path"] == "model"
    assert "python_function" in told["flavors"]


@pytest.mark.slow
def test_it_is_served(
    single: Finished, model: Any, say: Callable[..., Said], sound: np.ndarray, tmp_path: Path
) -> None:
    """The page's `mlflow models serve`: rows as JSON, sounds in base64 both ways; what is wrong
    is a 400."""
    trained = say("train", "--config", "small.toml", "--quiet", "--register", "sounds")
    assert trained.code == 0, trained.err
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = re.findall(r"^\$ ((?:export MLFLOW_TRACKING|mlflow models serve).*)$", PAGE, re.M)
    command = (
        "\n".join(lines).replace("5001", str(port)).replace("mlflow models", "exec mlflow models")
    )
    # MLflow looks for uvicorn on the path, as where a virtual environment is active.
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": scripts, "L2I_DEVICE": "cpu"}
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            ["sh", "-c", command], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)

        def ask(body: dict[str, Any]) -> tuple[int, Any]:
            request = urllib.request.Request(
                f"{url}/invocations",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        data = _wav(tmp_path / "a.wav", sound).read_bytes()
        (wanted,) = model.predict(pd.DataFrame([{"bytes": data}]), params={"explain": True})
        for row in (
            {"bytes": base64.b64encode(data).decode()},
            {"samples": sound.tolist(), "sample_rate": RATE},
        ):
            code, answer = ask({"dataframe_records": [row], "params": {"explain": True}})
            assert code == 200, answer
            (prediction,) = answer["predictions"]
            for name, value in wanted.items():
                if name in ("explanation", "removal"):
                    assert base64.b64decode(prediction[name]) == value
                else:
                    assert prediction[name] == value, name
        for body, words in (
            ({"dataframe_records": [{"bytes": base64.b64encode(b"no").decode()}]}, "be decoded"),
            ({"dataframe_records": [{"file": "a.wav"}]}, "a column 'file'"),
            ({"dataframe_records": [row], "params": {"clas": "siren"}}, "no parameter 'clas'"),
        ):
            code, answer = ask(body)
            assert code == 400
            assert words in answer
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait(20)


def test_registered(
    single: Finished, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--register` makes one version of the run's model, once, which loads by its name; the
    lines that serve it are told."""
    import mlflow.pyfunc
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # Which MLflow itself sets.
    for _ in range(2):
        answer = say("train", "--config", "small.toml", "--quiet", "--register", "Hörprobe 1")
        assert answer.code == 0, answer.err
    uri = f"sqlite:///{single.folder / 'mlruns' / 'mlflow.db'}"
    told = say("train", "--config", "small.toml", "--register", "Hörprobe 1").err
    assert f"  export MLFLOW_TRACKING_URI={uri}\n" in told
    assert "  mlflow models serve -m 'models:/Hörprobe 1/latest' --env-manager local" in told
    client = MlflowClient(uri)
    (version,) = client.search_model_versions("name = 'Hörprobe 1'")
    assert version.run_id == single.outcome.run_id
    assert str(version.version) == "1"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        loaded = mlflow.pyfunc.load_model("models:/Hörprobe 1/1")
    finally:
        mlflow.set_tracking_uri(before)
    assert loaded.predict(pd.DataFrame([{"samples": [0.1, 0.0], "sample_rate": 8000}]))
    answer = say("train", "--config", "small.toml", "--quiet", "--register", "a/b")
    assert answer.code == 2
    assert "a/b" in answer.err
