"""One validated tree of settings, from defaults, presets, a TOML file and the command line.

The layers, later ones winning::

    defaults (the published ESC-50 configuration)  <-  the data set's preset (l2i/presets)
        <-  own-classifier, with --classifier  <-  --config FILE.toml (and what it `extends`)
        <-  -o key=value  <-  options

All mistakes are reported at once, each with the nearest valid key. The **signature** of a
config is a hash of it without what does not change the science (where the data lie, names,
the device): the same experiment has the same signature on every machine. Stages have
signatures of their own, over the settings they read, so that a change of an interpreter's
setting does not train the classifier again.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from textwrap import wrap
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from l2i.environment import usual_data_dir
from l2i.errors import ConfigError
from l2i.registry import nearest

__all__ = [
    "Augmentation",
    "Classifier",
    "Config",
    "Dataset",
    "Dictionary",
    "Explanation",
    "Interpreter",
    "Meaning",
    "Method",
    "Output",
    "Run",
    "Spectrogram",
    "Warn",
    "flatten",
    "meanings",
    "own_classifier_preset",
    "preset_names",
    "read_toml",
    "resolve",
    "toml_of",
]

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Threshold = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Section(BaseModel):
    # Neither infinity nor NaN is a setting, nor can JSON, and so `to_toml`, write them.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, strict=False, allow_inf_nan=False
    )


class Dataset(_Section):
    """Which clips, and in what form."""

    name: str = Field("demo", description="Data set; 'l2i data list' has them.")
    data_dir: str = Field("", description="Where the data lie; empty: the cache's default place.")
    fold: int = Field(1, ge=1, description="The test fold, where the data set has folds.")
    sample_rate: int | None = Field(None, ge=1000, le=384000, description="Hz; unset: the card's.")
    duration_s: float | None = Field(None, gt=0, le=3600, description="Unset: the card's.")
    validation_share: float = Field(
        0.1, gt=0.0, lt=0.9, description="Share of the training clips that choose the best epoch."
    )
    seed: int = Field(0, ge=0, description="Random seed of a synthesised data set.")
    clips_per_class: int | None = Field(
        None, ge=2, description="Clips per class of a synthesised data set; unset: the card's."
    )
    limit: int | None = Field(
        None, ge=1, description="At most so many clips per split, drawn evenly (for trials)."
    )


class Spectrogram(_Section):
    """Short-time Fourier transform and log-mel front-end."""

    n_fft: int = Field(1024, ge=64, le=65536, description="Samples to a frame; even.")
    hop_length: int = Field(512, ge=1, description="Samples from frame to frame.")
    n_mels: int = Field(128, ge=128, le=512, description="A multiple of 64, from 128.")

    @model_validator(mode="after")
    def _fits(self) -> Spectrogram:
        if self.n_fft % 2:
            raise ValueError(f"n_fft {self.n_fft} must be even: frames have a middle")
        if self.hop_length > self.n_fft // 2:
            raise ValueError(
                f"hop_length {self.hop_length} leaves gaps: with a Hann window of n_fft "
                f"{self.n_fft} it must be at most {self.n_fft // 2}"
            )
        if self.n_mels % 64:
            raise ValueError(f"n_mels {self.n_mels} must be a multiple of 64")
        return self


class Augmentation(_Section):
    """Changes to training clips, against learning them by heart."""

    enabled: bool = Field(True, description="Whether training clips are changed at all.")
    shift: bool = Field(True, description="Rotate each clip in time by a random amount.")
    mixup: NonNegative = Field(0.3, description="Beta parameter of mixup; 0 switches it off.")
    frequency_masks: int = Field(2, ge=0, description="Stretches of mel bands that are silenced.")
    frequency_mask_bands: int = Field(16, ge=0, description="Mel bands, at most.")
    time_masks: int = Field(2, ge=0, description="Stretches of frames that are silenced.")
    time_mask_share: Share = Field(0.1, description="Share of the frames in one mask, at most.")
    gain_db: NonNegative = Field(6.0, description="Random gain, at most, either way.")
    filter_db: NonNegative = Field(
        0.0, description="Random smooth filter over the bands, at most, either way."
    )
    noise_db: NonNegative = Field(
        0.0,
        description="Noise under seven of ten clips, from 10 to so many dB below them; 0: none.",
    )
    crop_share: float = Field(
        1.0, gt=0.1, le=1.0, description="Train on random crops of this share of the frames."
    )

    @model_validator(mode="after")
    def _noise(self) -> Augmentation:
        if 0 < self.noise_db < 10:
            raise ValueError(f"noise_db {self.noise_db:g} must be 0, or at least 10")
        return self


class Classifier(_Section):
    """The network to be explained, and how its weights come about."""

    spec: str = Field(
        "",
        description="A classifier of your own to explain, as --classifier names it: no training.",
    )
    weights: str = Field("", description="A trained classifier's checkpoint: no training.")
    audioset_weights: str = Field("", description="AudioSet weights for the trunk (.pkl, .pt).")
    head: int = Field(256, ge=1, description="Channels of the 1x1 head convolution.")
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="Share of the head's inputs left out.")
    train_trunk: bool = Field(True, description="False: only the head learns.")
    epochs: Positive = Field(40, description="Passes over the training clips.")
    batch_size: Positive = Field(32, description="Clips per step.")
    optimizer: Literal["adam", "adamw"] = Field("adamw", description="How steps are taken.")
    learning_rate: Rate = Field(1e-3, description="Learning rate; with 'one-cycle' the greatest.")
    schedule: Literal["one-cycle", "steps", "constant"] = Field(
        "one-cycle", description="How the learning rate goes over the epochs."
    )
    steps: list[tuple[Positive, Rate]] = Field(
        default_factory=list,
        description="For schedule 'steps': pairs of epochs and learning rate, in order.",
    )
    weight_decay: NonNegative = Field(1e-3, description="Pull of the weights towards 0.")
    average: float = Field(
        0.99, ge=0.0, lt=1.0, description="Decay of the moving average of the weights; 0: none."
    )
    freeze_after: list[float] = Field(
        default_factory=list,
        max_length=6,
        description="Shares of the training after which the trunk's blocks learn no more, the "
        "lowest first.",
    )
    last_epoch: bool = Field(
        False, description="Keep the last epoch's weights, not those of the best one."
    )
    precision: Literal["", "float32", "bfloat16", "float16", "auto"] = Field(
        "",
        description="Number format of its training; empty: the run's; 'auto': bfloat16 if the "
        "device has it.",
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, lt=1.0, description="Share of each label that is spread over all classes."
    )
    pos_weight: list[NonNegative] = Field(
        default_factory=list, description="Multi-label: weight of the positives, per class."
    )
    thresholds: list[Share] = Field(
        default_factory=list,
        description="Multi-label: decision thresholds per class; empty: found on training clips.",
    )
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _freezes(self) -> Classifier:
        shares = self.freeze_after
        if not all(0 < share <= 1 for share in shares) or shares != sorted(shares):
            raise ValueError(
                f"freeze_after {shares} must be shares of the training, above 0 and at most 1, "
                "and none less than the one before: a block learns no longer than those above it"
            )
        return self


class Dictionary(_Section):
    """Sparse NMF of log(1 + |X|)."""

    weights: str = Field("", description="A learnt dictionary's checkpoint, whose K counts.")
    components: Positive = Field(100, description="K; for class-wise learning of all classes.")
    method: Literal["joint", "class-wise", "random", "none"] = Field(
        "joint",
        description="How it is learnt; 'random': not at all; 'none': frequency bands in its place.",
    )
    noise_components: int = Field(
        10, ge=0, description="Class-wise: extra components fitted to clips without the class."
    )
    sparsity: NonNegative = Field(0.8, description="Weight of the L1 penalty on activations.")
    iterations: Positive = Field(100, description="Updates, at most.")
    tolerance: NonNegative = Field(1e-4, description="Stop below this relative fall.")
    max_clips: int = Field(
        0, ge=0, description="Learn from at most so many clips (per class); 0: from all."
    )


class Interpreter(_Section):
    """The network that turns hidden maps into activations, and its training."""

    network: Literal["", "published", "general"] = Field(
        "",
        description="Empty: the published one for the built-in classifier, else the general one.",
    )
    layers: list[str] = Field(
        default_factory=list,
        description="Hidden layers that the general network reads, as NAME or NAME=AXES; empty: "
        "found by a rule ('l2i classifiers check' shows them).",
    )
    maps: list[Literal["512", "256", "128"]] = Field(
        ["512", "256", "128"],
        description="Hidden maps that the published network reads, by their channels.",
    )
    pooling: Literal["attention", "max"] = Field(
        "attention", description="How activations become one number per component."
    )
    attention_width: Positive = Field(256, description="Channels of the attention.")
    skip_silence: bool = Field(
        False, description="No activations where there is nothing to hear; unpublished."
    )
    epochs: Positive = Field(35, description="Passes over the training clips.")
    batch_size: Positive = Field(32, description="Clips per step.")
    learning_rate: Rate = Field(2e-4, description="Learning rate of Adam.")
    head_learning_rate: Rate | None = Field(
        None, description="Learning rate of the head Theta; unset: learning_rate, as published."
    )
    average: float = Field(
        0.0, ge=0.0, lt=1.0, description="Decay of the moving average of the weights; 0: none."
    )
    lambda_reconstruction: NonNegative = Field(
        5.0, description="Weight of the spectrogram's reconstruction from activations."
    )
    lambda_fidelity: NonNegative = Field(
        0.5, description="Weight of agreement with the classifier, before late_epoch."
    )
    lambda_fidelity_late: NonNegative = Field(1.0, description="The same from late_epoch on.")
    late_epoch: int = Field(20, ge=1, description="From this epoch (from 1): the late weight.")
    lambda_sparsity: NonNegative = Field(0.4, description="Weight of the activations' L1 norm.")
    views: Positive = Field(
        1, description="Fixed time-shifted copies of each training clip the classifier hears once."
    )
    mixed_db: NonNegative = Field(
        0.0,
        description="In each view but the first another clip is added, 0 to so many dB below; "
        "0: none.",
    )
    silenced: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of clips in each view but the first of which a stretch alone is left; "
        "0: none.",
    )


GATED = "gated-l2i"
"""The method of the presets: L2I's dictionary and interpreter, and gates that are learnt."""


class Method(_Section):
    """What explains, and so what is learnt."""

    name: str = Field("l2i", description="A method, or one of your own: MODULE:NAME, FILE.py:NAME.")


class Warn(_Section):
    """When it is said that an explanation, or a run's figures, should not be relied on."""

    fall: Share = Field(
        0.2,
        description="An explanation holds if its class loses at least this share of its "
        "probability when the explanation is removed.",
    )
    alone: Share = Field(
        0.5, description="And if the class keeps this share of it by the explanation alone."
    )
    probability: Share = Field(
        0.01, description="A class below this probability is not said by the classifier."
    )
    chance: float = Field(
        1.5,
        ge=1.0,
        description="Near chance: the odds of being right are at most so many times a guess's.",
    )
    silence_db: float = Field(
        -80.0, le=0.0, description="Silent: the peak is at most this, in dB of full scale."
    )
    one_class: Share = Field(
        0.9,
        description="Fidelity says little where the classifier gives one class to this share of "
        "the test clips.",
    )
    clips: int = Field(30, ge=0, description="Fewer test clips than this are few.")


class Explanation(_Section):
    """Which components are relevant enough."""

    rule: Literal["", "published"] = Field(
        "",
        description="'published': L2I's own rule instead of gates, and nothing is learnt for them.",
    )
    threshold: float = Field(0.2, ge=0.0, lt=1.0, description="tau for explanation audio.")
    max_components: int = Field(5, ge=0, description="At most so many; 0: no limit.")
    faithfulness_threshold: float = Field(0.3, ge=0.0, lt=1.0, description="tau for removal.")
    thresholds: list[Threshold] = Field(
        default=[0.1, 0.3, 0.5],
        description="tau of the curve of faithfulness; faithfulness_threshold is on it always.",
    )
    random_draws: Positive = Field(3, description="Draws of the random baseline.")
    metrics: list[str] = Field(
        default_factory=list,
        description="More figures of each explanation, your own: MODULE:NAME, FILE.py:NAME.",
    )
    warn: Warn = Warn()


class Output(_Section):
    """What a run writes for people."""

    clips: int = Field(12, ge=0, description="Test clips explained with sound and pictures.")


class Run(_Section):
    """Where and how, not what."""

    seed: int = Field(0, ge=0, description="Random seed: weights, order, split.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="What to compute on.")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32", description="Number format of the networks."
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0: one per physical core.")
    checkpoint_minutes: float = Field(
        5.0,
        ge=0.0,
        description="Between uploads of the last checkpoint to a store elsewhere; 0: none.",
    )
    experiment: str = Field("", description="MLflow experiment; empty: the data set's name.")
    name: str = Field("", description="Run name; empty: data set, fold and signature.")


# What an experiment is called, where its data lie and what it runs on are not the experiment.
_NOT_SCIENCE = {
    "dataset": {"data_dir"},
    # Its content counts (see `l2i.recipes.train`), wherever it lies.
    "classifier": {"spec"},
    # What is said of figures does not change them.
    "explanation": {"warn"},
    "run": {"device", "threads", "checkpoint_minutes", "experiment", "name"},
    "output": None,
}

_LATE_KEYS = (
    ("classifier", "freeze_after"),
    ("classifier", "last_epoch"),
    ("classifier", "precision"),
    ("classifier", "augmentation", "filter_db"),
    ("classifier", "augmentation", "noise_db"),
    ("dictionary", "weights"),
    ("interpreter", "network"),
    ("interpreter", "layers"),
    ("interpreter", "skip_silence"),
    ("interpreter", "head_learning_rate"),
    ("interpreter", "average"),
    ("interpreter", "mixed_db"),
    ("interpreter", "silenced"),
    ("explanation", "metrics"),
)

# The preset that is laid over a data set's, for a classifier of another making.
_OWN = "own-classifier"

# The sections each stage of `train` reads; a stage depends on those before it.
STAGES = {
    "classifier": ("dataset", "spectrogram", "classifier", "run"),
    "dictionary": ("dataset", "spectrogram", "dictionary", "run"),
    "interpreter": ("dataset", "spectrogram", "classifier", "dictionary", "interpreter", "run"),
}


class Config(_Section):
    """The whole tree."""

    dataset: Dataset = Dataset()
    spectrogram: Spectrogram = Spectrogram()
    classifier: Classifier = Classifier()
    dictionary: Dictionary = Dictionary()
    interpreter: Interpreter = Interpreter()
    method: Method = Method()
    parts: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of each part that a method of your own learns.",
    )
    explanation: Explanation = Explanation()
    output: Output = Output()
    run: Run = Run()

    @model_validator(mode="after")
    def _published(self) -> Config:
        if self.explanation.rule == "published" and self.method.name == GATED:
            object.__setattr__(self, "method", Method(name="l2i"))
            object.__setattr__(self, "parts", {k: v for k, v in self.parts.items() if k != "gates"})
        return self

    def flat(self) -> dict[str, Any]:
        """Every setting under its dotted key, ``interpreter.epochs`` say.

        >>> Config().flat()["dictionary.components"]
        100
        """

        return flatten(self.model_dump(mode="json"))

    def science(self) -> dict[str, Any]:
        """The settings of `flat` that make the experiment: not where its data lie, what it is
        called, what it runs on.

        >>> set(Config().flat()) - set(Config().science()) >= {"run.device", "dataset.data_dir"}
        True
        """
        return flatten(self._science())

    def _science(self) -> dict[str, Any]:
        tree = self.model_dump(mode="json")
        for section, keys in _NOT_SCIENCE.items():
            if keys is None:
                del tree[section]
            else:
                for key in keys:
                    del tree[section][key]
        return tree

    def signature(self, stage: str | None = None) -> str:
        """Twelve hexadecimal digits that name the experiment, or one stage of it.

        Parameters
        ----------
        stage : str, optional
            ``classifier``, ``dictionary`` or ``interpreter``: only what this stage reads counts.
            For a part of another method all does.

        Examples
        --------
        >>> a, b = resolve(), resolve(overrides=["run.device=cuda", "run.name=mine"])
        >>> a.signature() == b.signature()
        True
        >>> c = resolve(overrides=["interpreter.epochs=3"])
        >>> a.signature("classifier") == c.signature("classifier")
        True
        >>> a.signature() == c.signature()
        False
        """
        tree = self._science()
        del tree["explanation"]["rule"]  # It says which method, and that is among the settings.
        # Unset, they leave the signatures of runs that were made before there were these keys.
        for *path, key in _LATE_KEYS:
            node = tree
            for part in path:
                node = node[part]
            if not node[key]:
                del node[key]
        if tree["method"] == Method().model_dump():
            del tree["method"]
        if not tree["parts"]:
            del tree["parts"]
        if stage is not None:
            read = STAGES.get(stage, tuple(self._science()))
            tree = {name: tree[name] for name in read if name in tree}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]

    def to_toml(self, explain: bool = False) -> str:
        """The tree as TOML that `resolve` reads back to an equal tree; unset keys are left out.

        With `explain`, what each setting means stands over it as a comment.
        """
        lines: list[str] = []
        known = meanings(type(self)) if explain else {}

        def table(name: str, tree: Mapping[str, Any]) -> None:
            if not tree:
                return
            lines.append(f"[{name}]")
            for key, value in tree.items():
                if value is not None and not isinstance(value, dict):
                    if told := known.get(f"{name}.{key}"):
                        lines.extend(f"# {line}" for line in wrap(str(told), 78))
                    lines.append(f"{key} = {_toml_value(value)}")
            lines.append("")
            for key, value in tree.items():
                if isinstance(value, dict):
                    table(f"{name}.{key}", value)

        for name, tree in self.model_dump(mode="json").items():
            table(name, tree)
        return "\n".join(lines).rstrip() + "\n"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values under their dotted keys, whether these were quoted or written as tables.

    >>> flatten({"run": {"seed": 1}, "interpreter.epochs": 2})
    {'run.seed': 1, 'interpreter.epochs': 2}
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a setting is.

    Attributes
    ----------
    text : str
        Its description; units are in it, or in the name.
    allowed : str
        Its range or its choices; empty: anything of its kind.
    default : object
        Before presets.
    """

    text: str
    allowed: str
    default: Any

    def __str__(self) -> str:
        return f"{self.text} ({self.allowed})" if self.allowed else self.text


def meanings(model: type[BaseModel], prefix: str = "") -> dict[str, Meaning]:
    """What each setting of a section, and of those below it, means, under its dotted key.

    >>> str(meanings(Config)["interpreter.average"])
    'Decay of the moving average of the weights; 0: none. (0 or more, below 1)'
    """
    found: dict[str, Meaning] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= meanings(kind, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            allowed = _allowed(kind, field.metadata)
            found[prefix + name] = Meaning(field.description or "", allowed, default)
    return found


def _allowed(kind: Any, metadata: Sequence[Any]) -> str:
    """The range or the choices of a setting, in words."""
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata = [*more, *metadata]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        (one, *others) = [k for k in get_args(kind) if k is not type(None)]
        return "" if others else _allowed(one, metadata)
    words = {"ge": "{:g} or more", "gt": "above {:g}", "le": "at most {:g}", "lt": "below {:g}"}
    found = []
    for bound in [b for m in metadata for b in (*getattr(m, "metadata", ()), m)]:
        for name, text in words.items():
            if (value := getattr(bound, name, None)) is not None:
                found.append(text.format(value))
    return ", ".join(dict.fromkeys(found))


def preset_names() -> list[str]:
    """Names of the built-in presets, one per data set."""
    files = resources.files("l2i") / "presets"
    names = (p.name[: -len(".toml")] for p in files.iterdir() if p.name.endswith(".toml"))
    return sorted(name for name in names if name != _OWN)


def own_classifier_preset(section: str) -> dict[str, Any]:
    """A section of the settings that a classifier of another making is given, where nothing else is
    said; empty: none of them differs."""
    found: dict[str, Any] = _preset(_OWN).get(section, {})
    return found


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _keys(kind, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def read_toml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A config file's tree, laid over what it `extends`; nothing is validated.

    Raises
    ------
    ConfigError
        There is no such file, or it is not TOML, or it extends itself.
    """
    path = path.resolve()
    if path in seen:
        raise ConfigError([f"{path} extends itself, by way of {' -> '.join(map(str, seen))}."])
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"There is no config file {path}."]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"The config file {path} cannot be read: {error}."]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"The config file {path} is not TOML: {error}."]) from None
    extends = tree.pop("extends", None)
    if extends is None:
        return tree
    if not isinstance(extends, str):
        raise ConfigError([f"'extends' in {path} must be the name of one file."])
    if extends in preset_names():
        # A file may build on a built-in preset by its bare name.
        return _merge(_preset(extends), tree)
    base = path.parent / extends
    if not base.exists():
        raise ConfigError(
            [
                f"{path} extends {extends!r}, which is neither a file ({base.resolve()}) nor a "
                f"preset: {', '.join(preset_names())}."
            ]
        )
    return _merge(read_toml(base, (*seen, path)), tree)


def toml_of(tree: Mapping[str, Any]) -> str:
    """A tree as TOML that `read_toml` reads back; keys without a value are left out.

    >>> print(toml_of({"extends": "demo", "sweep": {"seeds": [0, 1], "interpreter.epochs": [2]}}))
    "extends" = "demo"
    "sweep" = {"seeds" = [0, 1], "interpreter.epochs" = [2]}
    """
    return "\n".join(_toml_pairs(tree))


def _toml_pairs(tree: Mapping[str, Any]) -> list[str]:
    return [f"{_toml_value(str(k))} = {_toml_value(v)}" for k, v in tree.items() if v is not None]


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_toml_pairs(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # JSON's strings, numbers and booleans are TOML's too, but for one control character that JSON
    # leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _preset(name: str) -> dict[str, Any]:
    text = (resources.files("l2i") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _override(word: str) -> tuple[dict[str, Any] | None, str | None]:
    key, equals, value = word.partition("=")
    key = key.strip()
    if not equals or not key:
        return None, f"-o {word!r} must be key=value, such as -o interpreter.epochs=10."
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value  # A bare word is a string: quoting it twice in a shell is no joy.
    tree: dict[str, Any] = {}
    node = tree
    *parents, leaf = key.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[leaf] = parsed
    return tree, None


def _sentence(error: Any) -> str:
    # In a location, integers are positions in a list and are shown as such.
    parts = [f"[{p}]" if isinstance(p, int) else str(p) for p in error["loc"]]
    key = ".".join(parts).replace(".[", "[")
    if error["type"] == "extra_forbidden":
        known = _keys(Config)
        sections = sorted({k.rpartition(".")[0] for k in known})
        leaf = key.rpartition(".")[2]
        # A word without a dot is more likely a section than a whole key.
        first, second = (known, sections) if "." in key else (sections, known)
        like = (
            nearest(key, first)
            or nearest(key, second)
            or next((k for k in known if k.rpartition(".")[2] == leaf), None)
        )
        hint = f"; did you mean {like!r}?" if like else "; 'l2i config show' lists them."
        return f"There is no setting {key!r}{hint}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] in ("value_error", "missing"):
        return f"{key}: {message}."
    return f"{key} = {error['input']!r}: {message}."


def resolve(
    file: str | Path | None = None,
    *,
    dataset: str | None = None,
    overrides: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Lay the layers over each other and validate the result.

    Parameters
    ----------
    file : path, optional
        A TOML file; its ``extends`` names another file, relative to it, or a built-in preset.
        A table ``[sweep]`` is for ``l2i sweep``, and left out here.
    dataset : str, optional
        Name of the data set; wins over the file's. Where nothing names one it is ``folder`` if
        there is a ``dataset.data_dir``, else ``demo``.
    overrides : iterable of str
        ``section.key=value`` with a TOML value; a bare word is taken as a string.
    options : mapping, optional
        ``section.key`` to value; None means not given.

    Raises
    ------
    ConfigError
        With one sentence per mistake, which begins with the file where that is to be mended.

    Examples
    --------
    >>> resolve(overrides=["interpreter.epochs=7"]).interpreter.epochs
    7
    >>> resolve(overrides=["run.sed=7"])
    Traceback (most recent call last):
    l2i.errors.ConfigError: There is no setting 'run.sed'; did you mean 'run.seed'?
    """
    problems: list[str] = []
    own: dict[str, Any] = read_toml(Path(file)) if file is not None else {}
    own.pop("sweep", None)
    over: dict[str, Any] = {}
    for word in overrides:
        tree, problem = _override(word)
        if problem is not None or tree is None:
            problems.append(problem or "")
            continue
        over = _merge(over, tree)
    for key, value in (options or {}).items():
        if value is not None:
            section, _, leaf = key.rpartition(".")
            over = _merge(over, {section: {leaf: value}})
    if dataset is not None:
        over = _merge(over, {"dataset": {"name": dataset}})
    laid = _merge(own, over)

    section = laid.get("dataset", {})
    name = "demo"
    if isinstance(section, Mapping):
        # A folder that is named and nothing else is a folder of one's own. L2I_DATA_DIR is for all
        # data sets, and says nothing of which is meant.
        if "name" not in section and section.get("data_dir") not in (None, "", usual_data_dir()):
            laid = _merge(laid, {"dataset": {"name": "folder"}})
        name = laid.get("dataset", {}).get("name", "demo")
    layers = _preset(name) if name in preset_names() else {}
    chosen = laid.get("classifier", {})
    if isinstance(chosen, Mapping) and chosen.get("spec"):
        layers = _merge(layers, _preset(_OWN))
    usual, named = (x.get("method", {}) for x in (layers, laid))
    if isinstance(named, Mapping) and named.get("name", usual.get("name")) != usual.get("name"):
        layers.pop("parts", None)  # The preset's are of the preset's method.
    layers = _merge(layers, laid)
    try:
        config = Config.model_validate(layers)
    except ValidationError as error:
        for e in error.errors():
            # Presets have no mistakes: what the words do not say is the file's.
            blamed = file is not None and not _says(over, e["loc"])
            problems.append(f"{file}: {_sentence(e)}" if blamed else _sentence(e))
    if problems:
        raise ConfigError(problems)
    return config


def _says(tree: Any, location: Sequence[int | str]) -> bool:
    """Whether a tree has a value where a mistake is, be it a whole list of which an item is."""
    for part in location:
        if not isinstance(tree, Mapping):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True
