"""The settings: each with its range, its default, and what it means.

Over 300 lines: every setting once, with its range and its meaning.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Threshold = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    # Neither infinity nor NaN is a setting, nor can JSON, and so `to_toml`, write them.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, strict=False, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _of_64_bits(cls, value: Any) -> Any:
        # Neither TOML nor torch has more.
        if isinstance(value, int) and value >= 2**63:
            raise ValueError("input should be less than 2 to the power of 63")
        return value


class Dataset(Section):
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


class Spectrogram(Section):
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


class Augmentation(Section):
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


class Classifier(Section):
    """The network to be explained, and how its weights come about."""

    spec: str = Field(
        "",
        description="A classifier of your own to explain, as --classifier names it: no training.",
    )
    weights: str = Field("", description="A trained classifier's checkpoint: no training.")
    audioset_weights: str = Field("", description="AudioSet weights for the trunk (.pkl, .pt).")
    head: int = Field(256, ge=1, description="Channels of the 1x1 head convolution.")
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="Share of the head's inputs left out.")
    width: float = Field(
        1.0, gt=0.0, le=1.0, description="Channels of the trunk, as a share of the published ones."
    )
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
        if self.audioset_weights and self.width != 1:
            raise ValueError("audioset_weights fit the published network alone: set width to 1")
        return self


class Dictionary(Section):
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


class Interpreter(Section):
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


class Method(Section):
    """What explains, and so what is learnt."""

    name: str = Field("l2i", description="A method, or one of your own: MODULE:NAME, FILE.py:NAME.")


class Warn(Section):
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


class Explanation(Section):
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


class Output(Section):
    """What a run writes for people."""

    clips: int = Field(12, ge=0, description="Test clips explained with sound and pictures.")


class Run(Section):
    """Where and how, not what."""

    seed: int = Field(0, ge=0, description="Random seed: weights, order, split.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="What to compute on.")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32", description="Number format of the networks."
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0: one per physical core.")
    checkpoint_minutes: float = Field(
        5.0,
        ge=0.0,
        description="Between uploads of the last checkpoint to a store elsewhere; 0: none.",
    )
    experiment: str = Field("", description="MLflow experiment; empty: the data set's name.")
    name: str = Field("", description="Run name; empty: data set, fold and signature.")
