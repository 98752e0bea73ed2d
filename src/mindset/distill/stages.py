"""The stages of a distillation as Lightning modules: local, end to end, healing.

A stage knows its loss and its schedule; the loop around it, files and reports are elsewhere. The teacher hangs on a
stage without being part of it: it is neither saved nor trained. Invariant: a stage's checkpoint holds exactly what
changes (trained parameters, the banks' buffers, the clock; Lightning adds the optimizer and the data's position).
Nothing here draws from torch's global generator, so that a resumed run goes on with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning as L
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindset.distill.losses import head_kl, scaled_error
from mindset.distill.mixture import Mixture
from mindset.distill.revive import revive
from mindset.distill.schedule import Clock, k_at, lr_at
from mindset.distill.settings import DistillSettings
from mindset.distill.trained import choose_trained, parameter_groups
from mindset.graft.bank import Bank
from mindset.graft.model import banks
from mindset.probe.tap import tap_blocks, tap_states

__all__ = ["EndToEndStage", "HealStage", "LocalStage", "Stage"]

_LOG_EVERY = 10
"""Steps between two points of a curve."""
_USE_EVERY = 50
"""Steps over which slot use is counted where nothing is revived."""


class Stage(L.LightningModule):
    """What all stages share."""

    name: str
    after_step: Callable[[float], None] | None = None
    """Called with the loss once a step is wholly done; Lightning's own callbacks come before the clock goes on."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        settings: DistillSettings,
        clock: Clock,
        data: Mixture,
        lr: float,
    ) -> None:
        super().__init__()
        self.student = student
        object.__setattr__(self, "teacher", teacher)  # past nn.Module: not registered, not saved
        self.settings, self.clock, self.data, self.lr = settings, clock, data, lr
        self.targets = {layer: bank.k for layer, bank in banks(student).items()}
        self.figures: dict[str, Tensor | float] = {}
        self.strict_loading = False
        choose_trained(student, settings)

    # ---- what differs -----------------------------------------------------------------------------------

    def loss(self, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        """The loss of one batch."""
        raise NotImplementedError

    @property
    def anneal(self) -> float:
        """The share of this stage over which k falls."""
        return 0.0

    # ---- Lightning's hooks ------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = parameter_groups(self.student, self.settings, self.lr)
        self.peaks = [group["lr"] for group in groups]
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)

    def on_fit_start(self) -> None:
        cast(nn.Module, self.teacher).to(self.device).eval()
        for bank in banks(self.student).values():
            bank.counter = torch.zeros(bank.n_heads * bank.n_slots, dtype=torch.long, device=self.device)
            bank.train()  # the banks only: a student's dropout would be noise that its teacher does not have
        self.clock.start()

    def close(self) -> None:
        """Leave the student as an evaluation wants it, however training ended."""
        self.clock.stop()
        for layer, bank in banks(self.student).items():
            bank.counter = None
            bank.set_k(self.targets[layer])
        self.student.eval()
        # Lightning leaves what it trained on the CPU.
        self.student.to(next(cast(nn.Module, self.teacher).parameters()).device)

    def _progress(self) -> float:
        """How far the stage is; processes that train together go by the first one's clock."""
        alone = self.clock.seconds is None or self.trainer.world_size == 1
        return self.clock.progress if alone else self.trainer.strategy.broadcast(self.clock.progress)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        progress = self._progress()
        share = lr_at(progress, self.settings.warmup)
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        for group, peak in zip(optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        for layer, bank in banks(self.student).items():
            bank.set_k(self._k(bank, progress, self.targets[layer]))

    def _k(self, bank: Bank, progress: float, target: int | None) -> int | None:
        k = k_at(progress, self.anneal, bank.n_slots, target)
        candidates = getattr(bank, "propose", None)
        limit = candidates.candidates if candidates is not None else 0
        return min(k, limit) if k is not None and limit else k

    def training_step(self, batch: Int[Tensor, "batch pos"], batch_idx: int) -> Tensor:  # noqa: ARG002
        self.figures = {}
        loss = self.loss(batch)
        self.figures["loss"] = loss.detach()
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.clock.done += 1
        done, every = self.clock.done, self.settings.revive_every
        self.figures["k"] = next(iter(banks(self.student).values())).effective_k()
        if done % (every or _USE_EVERY) == 0:
            self._sum_use()
        if every and done % every == 0:
            shared = self.trainer.strategy.broadcast(batch)  # the same slots move in every process
            self.figures["revived"] = revive(self.student, shared, self.teacher)
        if done % (every or _USE_EVERY) == 0:
            self._count_use()
        if done % _LOG_EVERY == 0 or done % (every or _USE_EVERY) == 0:
            self._log()
        if self._progress() >= 1:
            self.trainer.should_stop = True
        if self.after_step is not None:
            self.after_step(float(self.figures["loss"]))

    def _sum_use(self) -> None:
        """Count what all processes read."""
        for bank in banks(self.student).values():
            counter = cast(Tensor, bank.counter)
            counter.copy_(self.trainer.strategy.reduce(counter.clone(), reduce_op="sum"))

    def _count_use(self) -> None:
        for layer, bank in banks(self.student).items():
            counter = cast(Tensor, bank.counter)
            self.figures[f"slot_use/{layer:02d}"] = (counter > 0).float().mean()
            self.figures[f"dead_slots/{layer:02d}"] = (counter == 0).sum()
            counter.zero_()

    def _log(self) -> None:
        """Write this step's figures; Lightning's own log would repeat old ones, and count anew after a resume."""
        if self.logger is not None:
            named = {f"{self.name}/{figure}": float(value) for figure, value in self.figures.items()}
            self.logger.log_metrics(named, step=self.clock.done)

    # ---- checkpoints ------------------------------------------------------------------------------------

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]  # Lightning gives no arguments
        changing = {name for name, p in self.student.named_parameters() if p.requires_grad}
        for layer in banks(self.student).values():
            changing |= {f"{self._path(layer)}.{name}" for name, _ in layer.named_parameters()}
            changing |= {f"{self._path(layer)}.{name}" for name, _ in layer.named_buffers()}
        state = self.student.state_dict()
        return {f"student.{name}": state[name] for name in sorted(changing) if name in state}

    def _path(self, bank: Bank) -> str:
        names: dict[nn.Module, str] = {module: name for name, module in self.student.named_modules()}
        return names[bank]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clock"] = self.clock.state()
        checkpoint["counters"] = [cast(Tensor, bank.counter) for bank in banks(self.student).values()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.clock.restore(checkpoint["clock"])
        self._counters = checkpoint["counters"]

    def on_train_start(self) -> None:
        for bank, counter in zip(banks(self.student).values(), getattr(self, "_counters", ()), strict=False):
            cast(Tensor, bank.counter).copy_(counter)


class LocalStage(Stage):
    """Each bank against its own block, on the teacher's activations; losses are scale-normalised and summed."""

    name = "local"

    @property
    def anneal(self) -> float:
        return self.settings.anneal

    def loss(self, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        held = banks(self.student)
        with torch.no_grad(), tap_blocks(self.teacher, tuple(held)) as passes, tap_states(self.teacher):
            cast(nn.Module, self.teacher)(tokens, use_cache=False)
        losses = []
        for layer, bank in held.items():
            x, y = passes[layer].both()
            if self.settings.shuffled_targets:
                generator = torch.Generator().manual_seed(self.clock.done)
                y = y[torch.randperm(len(y), generator=generator).to(y.device)]
            fvu = scaled_error(bank(x), y)
            self.figures[f"fvu/{layer:02d}"] = fvu.detach()
            losses.append(fvu)
        total: Tensor = torch.stack(losses).mean() * len(losses) ** 0.5
        return total


class EndToEndStage(Stage):
    """Forward KL to the teacher's next-token distribution."""

    name = "end_to_end"

    @property
    def anneal(self) -> float:
        return self.settings.anneal if self.settings.local_share == 0 else 0.0

    def loss(self, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        with torch.no_grad(), tap_states(self.teacher) as wanted:
            cast(nn.Module, self.teacher)(tokens, use_cache=False)
        with tap_states(self.student) as got:
            self.student(tokens, use_cache=False)
        width = got[0].shape[-1]
        return head_kl(
            got[0].reshape(-1, width),
            wanted[0].reshape(-1, width),
            self.student.get_output_embeddings(),  # type: ignore[operator]
            self.teacher.get_output_embeddings(),  # type: ignore[operator, union-attr]
            softcap=getattr(self.student.config, "final_logit_softcapping", None),
        )


class HealStage(Stage):
    """Next-token loss on text: what a network regains by training on, with or without a memory."""

    name = "heal"

    def loss(self, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        logits = self.student(tokens, use_cache=False).logits[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
