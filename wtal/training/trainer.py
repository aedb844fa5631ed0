"""The training loop: phases, steps, checkpoints. A step is a function of (weights, optimisers, seed, step number).

Random numbers are drawn from generators seeded by the step, never carried over, so a run that is killed and resumed
goes on with the very bits of an unbroken one.

Legend: B videos, T snippets, C classes.
"""

import copy
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feature_extraction.errors import RunFailure, UserError, reason_of
from feature_extraction.progress import progress
from wtal.config.groups import LoopSettings
from wtal.models.branch import BranchOutput
from wtal.models.streams import StreamedBranch
from wtal.training.collapse import collapse
from wtal.training.data import Batch, TrainingVideos
from wtal.training.distillation import drop_contradictions, keep_background, taught_loss
from wtal.training.folder import RunFolder, load_checkpoint, save_checkpoint
from wtal.training.map_supervision import MapSupervision
from wtal.training.processes import Processes, SlicedPass, sliced_pass
from wtal.training.pseudo_labels import PseudoLabels, teach, teach_together
from wtal.training.quality import PhaseQuality, Tracker, deviations
from wtal.training.schedule import Phase, plan, steps_before
from wtal.training.semi import SemiSupervision
from wtal.training.student import Student, average_decay


class Trainer:
    """Trains both branches by the schedule into a run folder, from its last checkpoint if it has one."""

    def __init__(
        self,
        config: LoopSettings,
        run: RunFolder,
        videos: TrainingVideos,
        students: dict[str, Student],
        raw_vlp: StreamedBranch | None,
        quality: PhaseQuality,
        tracker: Tracker,
        processes: Processes,
        device: torch.device,
        beside: SemiSupervision | None = None,
        boxes: MapSupervision | None = None,
    ) -> None:
        self.config, self.run, self.videos, self.students = config, run, videos, students
        self.raw_vlp, self.quality, self.tracker = raw_vlp, quality, tracker
        self.processes, self.device, self.beside, self.boxes = processes, device, beside, boxes
        self.step = 0
        self._remembered: dict[tuple[str, str, int], PseudoLabels] = {}
        self.phases = plan(config.schedule)
        # refused before anything is written
        for clips in {config.optimizer.batch, config.optimizer.batch + (beside.clips if beside else 0)}:
            processes.slice_rows(clips // config.optimizer.accumulate, config.optimizer.slice)

    def fit(self) -> None:
        """Run all phases that are left. Raises `RunFailure` where a loss is not finite."""
        self._resume()
        total = self.phases[-1].end
        with (
            ThreadPoolExecutor(1) as loader,
            progress(total=total, initial=self.step, desc="train", unit="step", shown=self.processes.first) as bar,
        ):
            for phase in self.phases:
                if not self._is_done(phase):
                    self._run_phase(phase, loader, bar)

    def _is_done(self, phase: Phase) -> bool:
        file = self._checkpoint(phase)
        unwritten = not file.is_file() and phase.first < self.step == phase.end
        self.processes.wait()  # for all to have looked
        if unwritten:
            self._save_end(phase)  # a kill came before it; the weights of now are still those at its end
        done = file.is_file() and self.step >= phase.end
        if not done and self.step > phase.first and self.step >= phase.end:
            # the weights at its end are gone; those of now would be taken for them
            raise UserError(
                f"{file}: missing, though this run trained past it (to step {self.step}); put the file back, or train "
                "in another folder with out=FOLDER"
            )
        # no process may begin a phase, and write its file, while another still asks whether it is there
        self.processes.wait()
        return done

    def _checkpoint(self, phase: Phase) -> Path:
        return self.run.checkpoints / f"{phase.name}.pt"

    def _run_phase(self, phase: Phase, loader: ThreadPoolExecutor, bar: Any) -> None:
        pseudo = self._pseudo_labels(phase)
        if pseudo is not None and self.step == phase.first:
            record = self._label_record(phase, pseudo)
            self._log(record)
            if "warning" in record and self.processes.first:
                bar.write(f"warning: {record['warning']}", file=sys.stderr)
        upcoming: Future[list[Batch]] | None = None
        while self.step < phase.end:
            batches = upcoming.result() if upcoming else self._load(phase, self.step)
            if self.step + 1 < phase.end:
                upcoming = loader.submit(self._load, phase, self.step + 1)
            terms = self._train_step(phase, batches, pseudo)
            self.step += 1
            bar.update()
            bar.set_description_str(f"{phase.name} loss {terms['loss']:.3f}", refresh=False)
            if self._is_logged(phase, self.step):
                self._log({"step": self.step, "phase": phase.name, "kind": "train", **terms})
            if self.step % self.config.training.checkpoint_steps == 0 and self.step < phase.end:
                self._save("last")
        self._end_phase(phase)

    def _is_logged(self, phase: Phase, step: int) -> bool:
        return step % self.config.training.log_steps == 0 or step == phase.end

    def _load(self, phase: Phase, step: int) -> list[Batch]:
        settings, seed = self.config.optimizer, self.config.seed
        part = settings.batch // settings.accumulate
        if phase.kind == "warmup" and self.students["cbp"].branch.pair_sampling:
            parts = range(step * settings.accumulate, (step + 1) * settings.accumulate)
            videos = np.concatenate([self.videos.paired(seed, number, part) for number in parts])
        else:
            videos = self.videos.shuffled(seed, step, settings.batch)
        known = self.videos
        if self.beside and phase.kind == "warmup":
            known, videos = self.beside.videos, self.beside.joined(videos, seed, step, settings.accumulate)
            part = len(videos) // settings.accumulate
        snippets = known.crops(videos, seed, step, settings.snippets, settings.sampling)
        rows = self.processes.slice(part)
        streams = self.students[phase.trains].branch.streams
        return [
            known.batch(videos[i : i + part], snippets[i : i + part], rows, streams)
            for i in range(0, len(videos), part)
        ]

    def _train_step(self, phase: Phase, batches: list[Batch], pseudo: PseudoLabels | None) -> dict[str, Any]:
        student = self.students[phase.trains]
        student.branch.train()
        torch.manual_seed(_mix(self.config.seed, self.step))
        for optimizer in student.optimizers:
            optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Any] = {}
        for batch in batches:
            forward = self._forward(student.branch, batch)
            loss, terms = self._loss(phase, student, forward.output, batch, pseudo)
            if not torch.isfinite(loss):
                raise RunFailure(
                    f"the loss of phase {phase.name} is {loss.item()} at step {self.step}; lower optimizer.lr "
                    "or set optimizer.clip_norm=1"
                )
            forward.backward(loss / len(batches))
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        parameters = [p for p in student.branch.parameters() if p.requires_grad]
        if self.config.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip_norm)
        for optimizer in student.optimizers:
            optimizer.step()
        self._after_step(phase, student)
        if student.branch.learnt() and self._is_logged(phase, self.step + 1):
            sums |= student.branch.learnt()
            label_BC, mask_BT = batch.label_BC.to(self.device), batch.mask_BT.to(self.device)
            sums["deviation"] = deviations(forward.output.p_BTC, label_BC, mask_BT)
        return sums

    def _forward(self, branch: StreamedBranch, batch: Batch) -> SlicedPass:
        feature = {name: x.to(self.device, non_blocking=True) for name, x in batch.feature.items()}
        precision = torch.bfloat16 if self.config.optimizer.precision == "bf16" else None
        rows = self.processes.slice_rows(len(batch.videos), self.config.optimizer.slice)
        return sliced_pass(branch, feature, batch.mask_here_BT.to(self.device), rows, self.processes, precision)

    def _loss(
        self,
        phase: Phase,
        student: Student,
        output: BranchOutput,
        batch: Batch,
        pseudo: PseudoLabels | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        settings, device, branch = self.config.loss, self.device, student.branch
        mask_BT, label_BC = batch.mask_BT.to(device), batch.label_BC.to(device)
        if pseudo is None:
            loss, terms = self._warmup_loss(phase, student, output, batch)
            if self.boxes is None:
                return loss, terms
            terms = {**terms, "boxes": self.boxes.loss(output, batch)}
            return loss + self.boxes.weight * terms["boxes"], terms
        label_BTC = pseudo.crops(batch).to(device)
        generator = torch.Generator().manual_seed(_mix(self.config.seed, self.step) + 1)
        loss, terms = taught_loss(output, label_BTC, label_BC, settings, generator)
        if settings.cls and phase.kind == "F":
            own, _ = branch.own_loss(output, label_BC, mask_BT, 1.0)
            terms["cls"] = own
            loss = loss + settings.cls * own
        return loss, terms

    def _warmup_loss(
        self, phase: Phase, student: Student, output: BranchOutput, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The branch's own loss, and that of the clips beside the weakly labelled ones."""
        mask_BT, progress = batch.mask_BT.to(self.device), self.step / max(1, phase.steps)
        if self.beside is None:
            return student.branch.own_loss(output, batch.label_BC.to(self.device), mask_BT, progress)
        taught = None
        if self.config.semi.consistency:
            student.average.eval()
            with torch.no_grad():
                said = self._forward(student.average, batch).output
                taught = said.p_BTC, student.average.video_probability(said, mask_BT)
        return self.beside.loss(student.branch, output, taught, batch, progress)

    def _after_step(self, phase: Phase, student: Student) -> None:
        done = (self.step + 1 - phase.first) / max(1, phase.steps)
        student.branch.after_step(done if phase.kind == "warmup" else 1.0)
        if student.average is not None:
            before = steps_before(self.phases, phase.trains, self.step)
            semi = phase.kind == "warmup" and self.config.semi.consistency
            student.follow(average_decay(self.config.semi.ema if semi else self.config.pseudo_labels.ema, before))

    def _pseudo_labels(self, phase: Phase) -> PseudoLabels | None:
        if phase.kind == "warmup":
            return None
        before = [p.kind for p in self.phases if p.end <= phase.first and p.steps]
        taught = {"cbp": "F" in before, "vlp": "B" in before}
        name = "cbp" if phase.kind == "B" else "vlp"
        teacher = self.students[name].teacher
        if self.config.pseudo_labels.together and taught["cbp"]:
            return self._together({name: teacher, phase.trains: self._at_start(phase)})
        if name == "vlp" and not taught["vlp"]:
            # only_f: frozen CLIP itself is the teacher
            teacher = self.raw_vlp
        agreement = self.config.pseudo_labels.agreement
        if agreement == "own" and phase.kind == "F":
            name, teacher = "cbp", self._at_start(phase)
        if agreement in ("none", "own"):
            return self._teach(teacher, name, taught[name])
        labels = self._said(teacher, name, taught[name], phase.first)
        own = self._at_start(phase)
        if agreement == "background" and phase.kind == "B" and not taught["vlp"]:
            # what the VLP starts from
            own = self.raw_vlp
        said = {name: labels, phase.trains: self._said(own, phase.trains, taught[phase.trains], phase.first)}
        if agreement == "drop":
            return labels.merged(said[phase.trains], drop_contradictions)
        labels = said["vlp"].merged(said["cbp"], keep_background)
        if taught["cbp"] and self.phases[0].steps:
            labels = labels.merged(self._said(None, "cbp", taught=False, step=self.phases[0].end), keep_background)
        return labels

    def _said(self, teacher: StreamedBranch | None, name: str, taught: bool, step: int) -> PseudoLabels:
        """`_teach`, remembered: a phase asks for both branches and the warm-up, the next one for two of them again.

        A branch's weights follow from how many steps had trained it before `step`; `teacher` None: those of the
        warm-up's checkpoint.
        """
        kind = (
            "average" if teacher is self.students[name].average else "frozen" if teacher is self.raw_vlp else "branch"
        )
        key = name, "branch" if teacher is None else kind, steps_before(self.phases, name, step)
        if key not in self._remembered:
            teacher = teacher or self._loaded(name, self.phases[0])
            self._remembered[key] = self._teach(teacher, name, taught)
        self._remembered[key] = self._remembered.pop(key)  # the latest asked for comes last
        while len(self._remembered) > 4:
            del self._remembered[next(iter(self._remembered))]
        return self._remembered[key]

    def _at_start(self, phase: Phase) -> StreamedBranch:
        """The branch that `phase` trains, as it was before it: a run resumed inside the phase is past that."""
        if self.step == phase.first:
            return self.students[phase.trains].branch
        return self._loaded(phase.trains, self.phases[self.phases.index(phase) - 1])

    def _loaded(self, name: str, phase: Phase) -> StreamedBranch:
        """A branch as it was at the end of `phase`."""
        branch = copy.deepcopy(self.students[name].branch)
        branch.load_state_dict(load_checkpoint(self._checkpoint(phase), [name])[name])
        return branch

    def _teach(self, teacher: StreamedBranch, name: str, taught: bool) -> PseudoLabels:
        videos, settings = self.videos, self.config.pseudo_labels
        rule = settings.rule_of(name, taught)
        return teach(teacher, videos.features, videos.ids, videos.label_NC, settings, rule, self.device)

    def _together(self, branches: dict[str, StreamedBranch]) -> PseudoLabels:
        videos, settings = self.videos, self.config.pseudo_labels
        pair = branches["cbp"], branches["vlp"]
        return teach_together(*pair, videos.features, videos.ids, videos.label_NC, settings, self.device)

    def _label_record(self, phase: Phase, pseudo: PseudoLabels) -> dict[str, Any]:
        mean = pseudo.coverage()
        quality = self.quality.of_labels(pseudo)
        record = {"step": self.step, "phase": phase.name, "kind": "pseudo_labels", **mean, **quality}
        warning = collapse(mean["foreground"], phase.name, self.config.pseudo_labels)
        return record | ({"warning": warning} if warning else {})

    def _end_phase(self, phase: Phase) -> None:
        student = self.students[phase.trains]
        if phase.kind == "warmup" and self.config.semi.consistency and self.config.semi.result == "teacher":
            student.branch.load_state_dict(student.average.state_dict())
        record = {"step": self.step, "phase": phase.name, "kind": "phase_end"}
        # by one rule for all phases, so that they can be compared
        record |= self.quality.of_branch(student.branch, self.config.pseudo_labels.later, self.device)
        record |= self.quality.of_videos(student.branch, self.device)
        if learnt := student.branch.learnt():
            record |= learnt | {"deviation": self.quality.deviations(student.branch, self.device)}
        self._log(record)
        # in this order: where the file of the last phase is there, nothing is left to do
        self._save("last")
        self._save_end(phase)

    def _save_end(self, phase: Phase) -> None:
        if self.processes.first:
            weights = {name: student.branch.state_dict() for name, student in self.students.items()}
            save_checkpoint(self._checkpoint(phase), {"step": self.step, **weights})
        self.processes.wait()

    def _log(self, record: dict[str, Any]) -> None:
        if self.processes.first:
            self.run.log(record)
            self.tracker.log(record)

    def _save(self, name: str) -> None:
        if self.processes.first:
            state = {key: student.state() for key, student in self.students.items()}
            save_checkpoint(self.run.checkpoints / f"{name}.pt", {"step": self.step, "students": state})
        self.processes.wait()

    def _resume(self) -> None:
        path = self.run.checkpoints / "last.pt"
        if path.is_file():
            state = load_checkpoint(path, ["step", "students"])
            try:
                for key, student in self.students.items():
                    student.restore(state["students"][key])
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                raise UserError(
                    f"{path}: not a checkpoint of this run's networks ({reason_of(error, 120)}); remove "
                    "the run folder and train again"
                ) from None
            self.step = state["step"]
        if self.processes.first:
            for half in self.run.checkpoints.glob(".*.part"):
                # what a kill left of a checkpoint
                half.unlink(missing_ok=True)
            self.run.rewind(self.step if path.is_file() else -1)
        self.processes.wait()


def _mix(seed: int, step: int) -> int:
    """A seed for one step, far from those of its neighbours."""
    return int(np.random.SeedSequence([seed, 3, step]).generate_state(1, np.uint64)[0] >> np.uint64(2))
