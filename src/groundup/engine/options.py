"""What a recipe may say about the budget, the hardware, the events and the guard of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from groundup.engine.plateau import PlateauOptions


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BudgetOptions(_Options):
    """How long to train: exactly one of `steps`, `tokens`, `minutes`, `epochs` and `environment_steps`; the number of
    steps is derived from it."""

    steps: int | None = Field(default=None, ge=1, description="optimizer steps")
    tokens: int | None = Field(default=None, ge=1, description="tokens to see; rounded up to whole steps")
    minutes: float | None = Field(
        default=None, gt=0.0, allow_inf_nan=False, description="training time; measured into steps at the start"
    )
    epochs: float | None = Field(default=None, gt=0.0, allow_inf_nan=False, description="passes over the training rows")
    tokens_per_step: int | None = Field(
        default=None, ge=1, description="tokens in one optimizer step; derived: 128 · depth²"
    )
    rows_per_step: int | None = Field(
        default=None, ge=1, description="rows in one optimizer step, for data that is no language; derived: 64"
    )
    environment_steps: int | None = Field(
        default=None, ge=1, description="steps to act in the environment, over all copies"
    )
    micro_batch: int | None = Field(
        default=None, ge=1, description="rows computed at once; the rest of a step is accumulated"
    )


class HardwareOptions(_Options):
    """What to compute on, and how."""

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of matrix products; weights stay float32. auto: bfloat16 where it is fast"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch.compile of the blocks. auto: when it pays within the run"
    )
    kernels: Literal["auto", "compiled", "plain"] = Field(
        default="auto",
        description="norm, SwiGLU, cross-entropy and attention of float32 on a CPU: compiled C, or torch's operations",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: usable cores")
    recompute: bool = Field(
        default=False, description="recompute block activations in backward: less memory, about a third slower"
    )
    price_per_hour: float | None = Field(
        default=None, ge=0.0, allow_inf_nan=False, description="of this machine, for the plan's cost"
    )


class EarlyStoppingOptions(_Options):
    """Stop when an evaluated metric no longer improves, and keep the best weights."""

    metric: str = Field(default="loss", description="a metric of the evaluation, e.g. loss, bits_per_byte")
    patience: int = Field(default=3, ge=1, description="evaluations without improvement before stopping")
    minimum_change: float = Field(default=0.0, ge=0.0, description="what counts as an improvement")


class EventOptions(_Options):
    """What happens between steps; all intervals in steps, 0 for never."""

    log_every: int | None = Field(default=None, ge=1, description="derived: about 100 lines a run")
    save_every: int | None = Field(default=None, ge=0, description="derived: five checkpoints a run")
    keep: int = Field(default=2, ge=2, description="whole checkpoints kept")
    keep_every: int | None = Field(default=None, ge=1, description="checkpoints at multiples are kept for ever")
    evaluate_every: int | None = Field(default=None, ge=0, description="derived: four evaluations a run")
    evaluate_tokens: int = Field(
        default=65536, ge=1, description="held-out tokens of the evaluations while training; the last takes all"
    )
    sample_every: int | None = Field(default=None, ge=0, description="derived: four times a run")
    sample_tokens: int = Field(default=64, ge=1, description="longest sample, in tokens")
    prompts: list[str] = Field(default_factory=list, description="fixed prompts of the samples over time")
    early_stopping: EarlyStoppingOptions | None = Field(default=None, description="null: run to the end")
    plateau: PlateauOptions | None = Field(default=None, description="null: the schedule alone decides the rate")
    average: float | None = Field(
        default=None, gt=0.0, lt=1.0, description="decay of an exponential average of the weights, e.g. 0.999"
    )


class GuardOptions(_Options):
    """What to do about non-finite values and spikes."""

    stop_after: int = Field(default=5, ge=1, description="consecutive non-finite steps before the run stops")
    spike: float = Field(default=6.0, gt=1.0, description="deviations above the recent mean that count as a spike")
    window: int = Field(default=64, ge=8, description="recent losses that the mean is taken over")
    rewind: bool = Field(
        default=False, description="after a spike go back to the last checkpoint and skip the rows since"
    )
