"""The stages of a distillation as Lightning modules: local, end to end, healing.

A stage knows its loss and its schedule; the loop around it, files and reports are elsewhere. The teacher hangs on a
stage without being part of it: it is neither saved nor trained. Invariant: a stage's checkpoint holds exactly what
changes (trained parameters, the banks' buffers, the clock, the data's position).
"""

from __future__ import annotations

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
from mindset.distill.tap import tap_blocks, tap_states
from mindset.distill.trained import choose_trained, parameter_groups
from mindset.graft.bank import Bank
from mindset.graft.model import banks

__all__ = ["EndToEndStage", "HealStage", "LocalStage", "Stage"]


class Stage(L.LightningModule):
    """What all stages share."""

    name: str

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
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
        self.student.train()
        self.clock.start()

    def on_fit_end(self) -> None:
        for layer, bank in banks(self.student).items():
            bank.counter = None
            bank.set_k(self.targets[layer])
        self.student.eval()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        share = lr_at(self.clock.progress, self.settings.warmup)
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        for group, peak in zip(optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        for layer, bank in banks(self.student).items():
            bank.set_k(self._k(bank, self.targets[layer]))

    def _k(self, bank: Bank, target: int | None) -> int | None:
        k = k_at(self.clock.progress, self.anneal, bank.n_slots, target)
        candidates = getattr(bank, "propose", None)
        limit = candidates.candidates if candidates is not None else 0
        return min(k, limit) if k is not None and limit else k

    def training_step(self, batch: Int[Tensor, "batch pos"], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log(f"{self.name}/loss", loss.detach(), prog_bar=False)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.clock.done += 1
        bank = next(iter(banks(self.student).values()))
        self.log(f"{self.name}/k", float(bank.effective_k()))
        every = self.settings.revive_every
        if every and self.clock.done % every == 0:
            self._log_use(revived=revive(self.student, batch, self.teacher))
        elif self.clock.done % 50 == 0:
            self._log_use(revived=None)
        if self.clock.over:
            self.trainer.should_stop = True

    def _log_use(self, revived: int | None) -> None:
        for layer, bank in banks(self.student).items():
            counter = cast(Tensor, bank.counter)
            self.log(f"{self.name}/slot_use/{layer:02d}", (counter > 0).float().mean())
            self.log(f"{self.name}/dead_slots/{layer:02d}", float((counter == 0).sum()))
            counter.zero_()
        if revived is not None:
            self.log(f"{self.name}/revived", float(revived))

    # ---- checkpoints ------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        changing = {name for name, p in self.student.named_parameters() if p.requires_grad}
        for layer in banks(self.student).values():
            changing |= {f"{self._path(layer)}.{name}" for name, _ in layer.named_parameters()}
            changing |= {f"{self._path(layer)}.{name}" for name, _ in layer.named_buffers()}
        state = self.student.state_dict()
        return {f"student.{name}": state[name] for name in sorted(changing) if name in state}

    def _path(self, bank: Bank) -> str:
        return next(name for name, module in self.student.named_modules() if module is bank)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clock"] = self.clock.state()
        checkpoint["data"] = self.data.state_dict()
        checkpoint["counters"] = [cast(Tensor, bank.counter) for bank in banks(self.student).values()]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.clock.restore(checkpoint["clock"])
        self.data.load_state_dict(checkpoint["data"])
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
            self.log(f"local/fvu/{layer:02d}", fvu.detach())
            losses.append(fvu)
        return torch.stack(losses).mean() * len(losses) ** 0.5


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
