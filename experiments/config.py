"""What an experiment is: every setting of a run, with the name and the help text that the command line shows."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from experiments import rules
from experiments.rules import OptimizerName, PresetName, Rule, flag
from experiments.rules.flips import Anneal
from experiments.rules.rule import MomentumDtype

try:
    from tyro.conf import OmitArgPrefixes, Suppress
except ModuleNotFoundError:  # no command line is parsed on this machine: settings are made by a program
    OmitArgPrefixes = Suppress = None

Channels = tuple[int | Literal["M"], ...]


@dataclasses.dataclass(frozen=True)
class Session:
    """How a run is carried out: settings that do not change its result and may differ when it is resumed."""

    resume: bool = False
    """Continue the run in --output with its settings, from its newest good checkpoint; if there is no run, start it."""
    keep: int = 3
    """Number of newest checkpoints to keep; with --validation, the best one is kept too."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints; a checkpoint is also written after each evaluation."""
    max_skipped: int = 20
    """Stop after this many consecutive batches with an update skipped because a value was not finite."""
    compilation_cache: Path | None = None
    """Keep compiled programs in this folder, so that later runs with the same settings, given the same folder, start
    sooner and with hardly any of the compiler's memory."""
    tensorboard: bool = False
    """Also write events for TensorBoard, into the run's folder."""
    devices: int | None = None
    """Number of devices over which each batch is split; None: all devices, or jax_default_device if it is set."""
    split_optimizer: bool = False
    """Let each device keep only a slice of the momentum."""
    coordinator: str | None = None
    """For a run of several processes: host:port of process 0, or auto if the cluster provides it (TPU pods, Slurm)."""
    num_processes: int | None = None
    """The number of processes of the run."""
    process_id: int | None = None
    """The number of this process, from 0."""

    def check(self) -> None:
        """Raises TypeError or ValueError, naming the setting, if one has a wrong type or is out of range."""
        check_types(self)
        for name in ("keep", "max_skipped", "devices", "num_processes"):
            check_count(name, getattr(self, name))
        if not 0 <= self.checkpoint_minutes < math.inf:
            raise ValueError(f"--checkpoint-minutes: must be a finite number >= 0, got {self.checkpoint_minutes}.")
        if self.coordinator is None or self.coordinator == "auto":
            for name in ("num_processes", "process_id"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{flag(name)}: needs --coordinator host:port, which is missing.")
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"--coordinator: must be host:port, or auto, got {self.coordinator!r}.")
        if self.num_processes is None or self.process_id is None:
            raise ValueError("--coordinator: needs --num-processes and --process-id too.")
        if not 0 <= self.process_id < self.num_processes:
            raise ValueError(f"--process-id: must be in 0 .. {self.num_processes - 1}, got {self.process_id}.")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one training run."""

    dataset: str
    """The data set, by its TensorFlow Datasets name."""
    channels: Annotated[Channels, Suppress] = ()
    """Channels of each convolution of the SpikingVGG, with "M" for each pooling; widths of mlp and rnn layers."""
    network: Literal["vgg", "mlp", "rnn", "resnet18", "resnet18-small"] = "vgg"
    """The network; resnet18-small is for small images, resnet18 for ImageNet, rnn for sequences of features."""
    binary_ends: bool = False
    """Make the first layer and the readout binary too, so that only flips do the learning."""
    norm: Literal["shared", "per-step", "across-time", "fast", "none"] = "per-step"
    """Running statistics of the norms: shared by the time steps (shared), kept for each time step (per-step), shared
    with batch renormalisation (across-time), or shared and updated ten times faster (fast); none: no norm, but weights
    scaled by 1 / sqrt(fan-in)."""
    optimizer: OptimizerName = "t-bso"
    """The rule that trains the signs. Without latent weights: bso, bso-reset (momentum zeroed at a flip), t-bso,
    counter, and other authors' bop, boat, sgdat, bold. With latent weights: bptt-sgd, bptt-adam, and online ottt,
    ndot, sltt."""
    preset: PresetName = "calibrated"
    """Settings of bso, bso-reset and t-bso: the paper's (paper), or ours (calibrated), with a momentum whose window
    grows with the run and a threshold in units of its noise."""
    threshold: float | None = None
    """Flip threshold, in the rule's units; None: the rule's default."""
    b1: float | None = None
    """Decay of the momentum, or its initial value if it changes; None: the rule's default."""
    growth: float | None = None
    """Growth per update of the momentum's window, 1 / (1 - b1), in updates; None: the rule's default."""
    b2: float | None = None
    """Decay of the second moment; None: the rule's default."""
    rms_decay: float | None = None
    """Decay of the root mean square by which each channel's gradient is divided; None: the rule's default."""
    anneal: Anneal | None = None
    """How flips die out towards the end of the run: linear, cosine or none; None: the rule's default."""
    deploy_c: float | None = None
    """How sure a rule must be of a sign to deploy it, in the rule's units; 0: deploy the trained signs. None: the
    rule's default."""
    bits: int | None = None
    """Bits per weight of a counter, including its sign; None: the rule's default."""
    rho: float | None = None
    """Size of a counter's steps; None: the rule's default."""
    rise: float | None = None
    """Fraction by which a flip raises a weight's threshold in sgdat; None: the rule's default."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype in which the momentum is stored (rules with latent weights accept only float32)."""
    packed: bool = False
    """Store the signs at one bit each in training too; the result is the same (not for rules with latent weights)."""
    latent_learning_rate: float | None = None
    """Initial learning rate of latent weights (cosine decay); None: the rule's default."""
    latent_momentum: float | None = None
    """Momentum of bptt-sgd; None: the rule's default."""
    average: float | None = None
    """Decay of an average of the latent weights, at whose signs the network is evaluated; None: the rule's default, 0,
    which means no average."""
    learning_rate: float = 0.1
    """Initial learning rate of the real parameters (SGD, cosine decay)."""
    num_steps: int = 4
    """Number of time steps T."""
    trace: Literal["ottt", "ndot", "ndot-released", "none"] | None = None
    """Presynaptic trace of the weight gradient; None: the optimizer's default, which is ottt for bso and t-bso."""
    backward_steps: int | None = None
    """Backpropagate at only this many of the time steps, drawn anew for each batch; None: at all."""
    batch_size: int = 32
    """Examples per batch."""
    epochs: int = 15
    """Passes over the training examples."""
    evaluations: int = 1
    """Evaluations per epoch."""
    train_examples: int | None = None
    """Train on only this many examples, drawn with a fixed seed; None: all."""
    refresh: bool = True
    """Re-estimate the norms' statistics before every evaluation."""
    start: Path | None = None
    """Start from the network in this file, a run's model.bsojax, instead of from a random one."""
    seed: int = 0
    """Seed of the weights, the order of the examples and their augmentation."""
    frozen: bool = False
    """Never flip a sign: the control, in which only the real parameters learn."""
    control: bool = True
    """Afterwards train the frozen control with the same seed, for the table."""
    validation: bool = False
    """Hold out a fifth of the training examples and evaluate on it instead of the test set, to choose settings."""
    data_dir: Path | None = None
    """Folder of prepared data sets; None: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    output: Path | None = None
    """The run's folder, which must not hold a run yet, except with --resume; None: runs/NAME-DATE-TIME."""
    session: Annotated[Session, OmitArgPrefixes] = Session()
    """How the run is carried out."""

    def check(self) -> None:
        """Raises TypeError or ValueError, naming the setting, if one has a wrong type or is out of range."""
        check_types(self)
        for name in ("num_steps", "batch_size", "epochs", "evaluations", "train_examples"):
            check_count(name, getattr(self, name))
        if self.backward_steps is not None and not 1 <= self.backward_steps <= self.num_steps:
            raise ValueError(
                f"--backward-steps: must be in 1 .. {self.num_steps} time steps, got {self.backward_steps}."
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed: must be in 0 .. 2^32 - 1, got {self.seed}.")
        for name in ("learning_rate", "latent_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{flag(name)}: must be a finite number >= 0, got {value}.")
        for name in ("threshold", "growth", "deploy_c", "rho", "rise"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{flag(name)}: must be >= 0, got {value}.")
        for name in ("b1", "b2", "rms_decay", "latent_momentum", "average"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{flag(name)}: must be in [0, 1), got {value}.")
        if self.bits is not None and self.bits not in range(3, 9):
            raise ValueError(f"--bits: must be in 3 .. 8, got {self.bits}.")
        self.rule()
        self.session.check()
        if self.output is None and self.session.resume:
            raise ValueError("--resume: needs --output, the folder of the run to continue.")
        if self.output is None and self.session.coordinator is not None:
            raise ValueError("--output: required for a run of several processes; give a folder that all of them see.")

    def rule(self) -> Rule:
        """Returns the rule that trains the signs, with its settings.

        Raises:
          ValueError: a setting is given that the rule does not have.
        """
        usual, names = _defaults(), (*rules.SETTINGS, *rules.REFUSED)
        given = {name: getattr(self, name) for name in names if getattr(self, name) != usual[name]}
        return rules.make_rule(self.optimizer, self.preset, given)

    @property
    def updates_per_batch(self) -> int:
        """How often the optimizer is called per batch."""
        return 1 if rules.RULES[self.optimizer].through_time else self.num_steps

    @property
    def label(self) -> str:
        """The name of the run's rule in tables."""
        return "frozen signs" if self.frozen else rules.kind_of(self.optimizer, self.preset).label


def of_command_line(config: Config, base: Config, arguments: Sequence[str]) -> Config:
    """Returns the settings of a command line, without those that the named config sets for another rule.

    For example, cifar10-vgg11 sets the paper's threshold: with --preset calibrated or --optimizer bop, the number
    would mean something else. Settings that the user gives are unchanged.

    Args:
      config: the named config with the user's changes.
      base: the named config.
      arguments: what the user typed.

    Raises:
      ValueError: a preset is given, but the rule has none.
    """
    typed = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    if "--preset" in typed and config.optimizer not in rules.CALIBRATED:
        raise ValueError(f"--preset: '{config.optimizer}' has only its authors' settings; omit the flag.")
    families = [each.preset if each.optimizer in rules.CALIBRATED else each.optimizer for each in (config, base)]
    if families[0] == families[1]:
        return config
    usual = _defaults()
    return dataclasses.replace(config, **{name: usual[name] for name in rules.SETTINGS if flag(name) not in typed})


def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(Config)}


def check_types(settings: Config | Session) -> None:
    """Raises TypeError, naming the setting, if one does not have the type of its field."""
    for name, hint in typing.get_type_hints(type(settings)).items():
        if not is_of_type(getattr(settings, name), hint):
            raise TypeError(f"{flag(name)}: needs {_shown(hint)}, got {getattr(settings, name)!r}.")


def is_of_type(value: Any, hint: Any) -> bool:
    """Whether a value has the type that a field of a config declares.

    A bool does not count as a number; an int counts as a float if a float can hold it.
    """
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(is_of_type(value, part) for part in parts)
    if kind is Literal:
        return isinstance(value, str) and value in parts
    if kind is tuple:
        return isinstance(value, tuple) and all(is_of_type(entry, parts[0]) for entry in value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, float) or (is_of_type(value, int) and abs(value) < 2**1023)
    return isinstance(value, hint)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def check_count(name: str, value: int | None) -> None:
    """Raises ValueError unless the value of a setting is None or at least 1."""
    if value is not None and value < 1:
        raise ValueError(f"{flag(name)}: must be at least 1, got {value}.")


def of_json(values: Mapping[str, Any]) -> Config:
    """Returns the config of JSON values as written by as_json, with the default session; not yet checked.

    A missing setting takes its default. The session is not read, because it belongs to a machine.

    Raises:
      TypeError: there is an unknown setting, or the data set is missing.
    """
    hints = typing.get_type_hints(Config)
    known = {name: value for name, value in values.items() if name != "session"}
    for name, value in known.items():
        if hints.get(name) == Path | None and value is not None:
            known[name] = Path(value)
        elif hints.get(name) == Channels:
            known[name] = tuple(value)
    return Config(**known)


def as_json(config: Config) -> dict[str, Any]:
    """The config's fields as JSON values."""

    def of_fields(fields: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in fields}

    return dataclasses.asdict(config, dict_factory=of_fields)
