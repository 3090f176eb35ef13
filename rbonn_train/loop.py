"""Two-step training, top to bottom.

Step 1 trains binary activations with real weights, step 2 binary weights that start from step 1.
In the last epochs of step 2 residuals and int8 weights are rounded as the accelerator does; after
them BN's statistics are estimated anew, rounding included, and the scales that change the logits
least, on training images, are kept. Where the recipe has exact epochs, that comes before these:
their batches are computed without rounding and in the accelerator's integers in turn
(:mod:`rbonn_train.deployed`); an average of the weights gets statistics and scales of its own after
them. After each epoch of step 2 a calibrated checkpoint is written.

Each step begins from the seed anew, so that step 2, repeated from the file of step 1, gives the
same weights again. A run can be saved between any two batches, and then goes on bit for bit as if
it had never stopped (:mod:`rbonn_train.state`). Several processes train like one
(:mod:`rbonn_train.parallel`).
"""

import dataclasses
import math
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from isa.checkpoint import write_atomically
from isa.fixed import FixedPointError
from isa.network import Quantisation
from rbonn_train import state
from rbonn_train.calibrate import BATCH, CALIBRATION_IMAGES, scales, settle
from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset, batch_size, check_labels
from rbonn_train.deployed import Arithmetic, Deployed, fold
from rbonn_train.diagnose import TrainingError, broken_layer, broken_tensor
from rbonn_train.events import write_logs
from rbonn_train.files import FileSet
from rbonn_train.methods import REAL
from rbonn_train.methods.base import binary_layers
from rbonn_train.network import BinaryNetwork
from rbonn_train.optim import Average, LostGradient, make_optimizer, set_learning_rate, update
from rbonn_train.parallel import ALONE, World, apart
from rbonn_train.phases import FIRST_SUFFIX, Phase, binary_from_real, load_first, phases
from rbonn_train.results import Judge, write_real, write_results
from rbonn_train.source import ahead, make_source
from rbonn_train.state import Interrupts, Progress, StateError
from rbonn_train.teacher import SUFFIX as REAL_SUFFIX
from rbonn_train.teacher import Objective, load_teacher, teacher_digest
from rbonn_train.watch import Watch

EXACT = (Arithmetic.FLOAT, Arithmetic.INTEGER)  # of the batches of exact epochs, in turn


class Trainer:
    """One run. ``train_set`` and ``test_set`` fit the network; ``save_every``: minutes between two
    writings of its state; ``first``: a file of step 1 to begin step 2 from; ``notes``: kept in the
    state; ``world``: the processes that share the work; ``advice``: how an interrupted run goes on,
    if not by `rbonn train --resume`; ``interrupts``: what asks it to stop, if several runs share
    that. Raises DataError for labels that do not fit, CheckpointError for such a teacher,
    ParallelError for a batch that the processes cannot share."""

    def __init__(
        self,
        config: ModelConfig,
        train_set: Dataset | FileSet,
        test_set: Dataset | FileSet,
        seed: int,
        out: Path,
        *,
        progress: bool = True,
        save_every: float = 5.0,
        device: str = "cpu",
        first: Path | None = None,
        notes: Mapping[str, Any] | None = None,
        world: World = ALONE,
        advice: str | None = None,
        interrupts: Interrupts | None = None,
    ) -> None:
        self.config, self.recipe, self.seed, self.world = config, config.recipe, seed, world
        self.progress = progress and world.first
        self.device = torch.device(device)
        network = config.network
        for dataset, name in ((train_set, "training"), (test_set, "test")):
            check_labels(dataset.labels, network.classes, name)
        self.source = make_source(train_set, network, self.recipe)
        world.part(min(self.recipe.batch, len(train_set)))  # raises, if they cannot share it
        self.digest = [train_set.digest(), test_set.digest()]
        plain = dataclasses.replace(self.recipe, crop=1.0, lighting=0.0)
        self.judge = Judge(make_source(test_set, network, plain), self.device)
        self.checkpoint = out / f"{network.name}.safetensors"
        self.state_path = out / f"{network.name}{state.SUFFIX}"
        self.save_every, self.notes = save_every, dict(notes or {})
        self.advice = advice or f"go on with `rbonn train --resume {out}`"
        self.random, self.interrupts = torch.Generator(), interrupts or Interrupts()
        self.phases = phases(self.recipe)
        real = not self.phases[-1].deployed
        self.target = self.checkpoint.with_suffix(REAL_SUFFIX) if real else self.checkpoint
        path = self.recipe.teacher
        if not path and self.recipe.method == REAL:  # it may become the teacher that is to be given
            path = None
        teacher = None if path is None else load_teacher(path, network)
        self.teacher = teacher_digest(path)
        self.objective = Objective(self.recipe, teacher).to(self.device)
        self.at = Progress(phase=0 if first is None else 1)
        self._begin(None if first is None else load_first(first, network))

    def run(self) -> Path:
        """The path of what was trained. Raises TrainingError where the loss is lost or the network
        not finite, and KeyboardInterrupt, its state saved, on Ctrl-C or SIGTERM."""
        self.saved_at = time.monotonic()
        with self.interrupts:
            while True:
                phase = self.phases[self.at.phase]
                while self.at.epoch < phase.step.epochs:
                    self._epoch(phase)
                    self._finish_epoch(phase)
                if self.at.phase + 1 == len(self.phases):
                    break
                self._finish_phase()
        if self.world.first:
            self.state_path.unlink(missing_ok=True)
        return self.target

    @property
    def result(self) -> BinaryNetwork:
        """What is tested and written: the model, or its average."""
        return self.model if self.average is None else self.average.model

    def _begin(self, first: BinaryNetwork | None) -> None:
        """Makes the model, optimiser and average of the present phase."""
        phase, recipe = self.phases[self.at.phase], self.recipe
        state.seed_everything(self.seed)
        self.random.manual_seed(self.seed)
        if phase.deployed:
            assert first is not None
            model = binary_from_real(first, recipe)
        else:
            model = BinaryNetwork(self.config.network, real=recipe.method == REAL)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model
        self.module = Deployed(model)
        # In evaluation mode, that of exact epochs, u has no gradient.
        self.parallel = self.world.wrap(self.module, unused=phase.exact > 0)
        self.optimizer = make_optimizer(model, phase.step, recipe.u_rate)
        self.average = Average(model, recipe.ema) if recipe.ema else None
        self.watch = Watch(model)

    def _epoch(self, phase: Phase) -> None:
        at, start = self.at, time.monotonic()
        exact = phase.is_exact(at.epoch)
        if at.order is None:
            calibrated = self.model.quantisation is not None
            if phase.is_quantised(at.epoch) and not (exact and calibrated):
                self._quantise(self._calibrate())
            if exact and not phase.is_exact(at.epoch - 1):
                self._settle(self.model)
            at.order = torch.randperm(len(self.source.labels), generator=self.random)
        for layer in binary_layers(self.model):
            layer.set_progress(at.epoch / phase.step.epochs)
        self.model.train(not exact)
        title = self._title(phase)
        count = self._batches()
        bar = tqdm(
            range(at.batch, count), title, mininterval=1.0,
            disable=None if self.progress else True,  # None: no bar in a log file
            initial=at.batch, total=count,
        )  # fmt: skip
        before = at.seconds
        for number, batch in zip(bar, ahead(self._load, range(at.batch, count)), strict=True):
            set_learning_rate(
                self.optimizer, (at.epoch * count + number) / (phase.step.epochs * count)
            )
            if exact:
                self.module.arithmetic = EXACT[(at.epoch * count + number) % len(EXACT)]
            stop = self._step(*batch, f"{title}, batch {number}")
            at.batch = number + 1
            at.seconds = before + time.monotonic() - start
            bar.set_postfix(loss=f"{at.loss / at.seen:.3f}", accuracy=f"{at.correct / at.seen:.3f}")
            self._save_if_due(stop)

    def _load(self, number: int) -> tuple[Tensor, Tensor]:
        """This process's images and labels of a batch of the present epoch; their augmentation
        depends on nothing but the place of the batch in the run."""
        at = self.at
        assert at.order is not None
        place = f"{self.seed} {at.phase} {at.epoch} {number}"
        random = torch.Generator().manual_seed(zlib.crc32(place.encode()))
        index = at.order.split(self.recipe.batch)[number]
        part = self.world.part(len(index))
        return self.source.batch(index, random, part), self.source.labels[index[part]]

    def _step(self, images: Tensor, labels: Tensor, place: str) -> bool:
        """One batch, from its images to the weights after it. Whether the run was asked to stop."""
        recipe, at = self.recipe, self.at
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        labels = labels.to(self.device)
        # Rounding is simulated in float32: bfloat16 cannot hold a residual and its half.
        half = recipe.precision == "bfloat16" and self.model.quantisation is None
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            try:
                logits = self.parallel(images)
            except FixedPointError as error:
                raise self._unfit(f"in {place}", error) from error
        loss = self.objective(logits, images, labels)
        right, seen = int((logits.argmax(1) == labels).sum()), len(labels)
        value, correct, count, stop = self.world.sums(
            loss.item() * seen, right, seen, self.interrupts.requested
        )
        if not math.isfinite(value):
            layer = broken_layer(self.model, images) or "the loss"
            raise TrainingError(
                f"Loss must be finite, not {value} in {place}, at {layer}; {self._kept()}"
            )
        try:
            update(self.model, self.optimizer, loss, recipe.clip)
        except LostGradient as error:
            raise TrainingError(
                f"Gradients must be finite, not NaN or infinite in {place}, at {error}; "
                f"{self._kept()}"
            ) from error
        if self.average is not None:
            self.average.update(self.model)
        at.loss += value
        at.correct += int(correct)
        at.seen += int(count)
        return bool(stop)

    def _finish_epoch(self, phase: Phase) -> None:
        at, last = self.at, self.at.epoch + 1 == phase.step.epochs
        self._check_finite(phase)
        at.curve.append(
            {
                "step": phase.title,
                "epoch": at.epoch + 1,
                "loss": round(at.loss / at.seen, 5),
                "train_accuracy": round(at.correct / at.seen, 5),
                "test_accuracy": self.judge.accuracy(self.result) if self.world.first else None,
                "quantised": self.model.quantisation is not None,
                "seconds": round(at.seconds, 1),
            }
        )
        at.layers.append(self.watch.epoch(self.model))
        if self.world.first:
            write_logs(self.target, at.curve, at.layers)
        if self.progress:
            tqdm.write(f"{self.config.network.name} {at.curve[-1]}")
        if phase.deployed:
            if self.world.first:
                if last and (self.average is not None or not phase.exact):
                    self._settle(self.result)
                    self._check_integers(phase)
                self._write(last=last)
            at.saved = True
        elif last and self.recipe.method == REAL and self.world.first:
            accuracy = {"accuracy_float": at.curve[-1]["test_accuracy"]}
            write_real(self.target, self.result, self._told(), accuracy)
        at.next_epoch()

    def _settle(self, model: BinaryNetwork) -> None:
        """Statistics of BN and scales for what runs, or for the exact epochs before it."""
        with apart(model):
            self._quantise(settle(model, self._sample))

    def _check_finite(self, phase: Phase) -> None:
        """Raises TrainingError where an epoch left a network that is not finite: no loss has seen
        what its last batch did, and huge weights overflow in a test before they do in training."""
        sample = self._sample(batch_size(self.config.network, BATCH))
        training = self.result.training
        self.result.eval()
        layer = broken_tensor(self.model) or broken_layer(self.result, sample)
        self.result.train(training)
        if layer is not None:
            raise TrainingError(
                f"Network must be finite, not NaN or infinite after {self._title(phase)}, at "
                f"{layer}; {self._kept()}"
            )
        if phase.is_exact(self.at.epoch):
            self._check_integers(phase)

    def _check_integers(self, phase: Phase) -> None:
        """Raises TrainingError where the accelerator's formats cannot hold the network."""
        try:
            fold(self.result)
        except FixedPointError as error:
            raise self._unfit(f"after {self._title(phase)}", error) from error

    def _unfit(self, place: str, error: FixedPointError) -> TrainingError:
        return TrainingError(
            f"Network must fit the accelerator's integers {place}: {error}; {self._kept()}"
        )

    def _title(self, phase: Phase) -> str:
        return f"{phase.title} {self.at.epoch + 1}/{phase.step.epochs}"

    def _kept(self) -> str:
        """Which file a run that fails leaves behind."""
        if self.at.saved:
            return f"last good checkpoint: {self.checkpoint}"
        return f"{self.target} stays as it was" if self.target.exists() else "none was saved"

    def _finish_phase(self) -> None:
        """Keeps step 1, so that step 2 can be repeated without it, and begins step 2."""
        first = self.result
        tensors = {name: value.cpu().contiguous() for name, value in first.state_dict().items()}
        if self.world.first:
            write_atomically(self.checkpoint.with_suffix(FIRST_SUFFIX), save(tensors))
        self.at.next_phase()
        self._begin(first)

    def _quantise(self, quantisation: Quantisation | None) -> None:
        self.model.quantise(quantisation)
        self.result.quantise(quantisation)

    def _calibrate(self) -> Quantisation:
        return scales(self.result, self._sample(CALIBRATION_IMAGES), self.recipe.percentile)

    def _sample(self, count: int) -> Tensor:
        return self.source.sample(count).to(self.device)

    def _batches(self) -> int:
        """Batches per epoch; the last, smaller one is left out unless it is the only one."""
        return max(1, len(self.source.labels) // self.recipe.batch)

    def _told(self) -> dict[str, Any]:
        """What a checkpoint says of its training."""
        return {
            "seed": self.seed,
            "recipe": self.recipe.published(),
            "torch": torch.__version__,
            "curve": self.at.curve,
        }

    def _write(self, *, last: bool) -> None:
        rounded = self.result.quantisation
        if rounded is None:  # an early epoch: usable, but not trained for its rounding
            self.result.quantise(self._calibrate())
        metrics = self.judge.metrics(self.result) if last else {}
        write_results(self.checkpoint, self.result, self._told(), metrics, self.at.layers)
        self.result.quantise(rounded)

    def _save_if_due(self, stop: bool) -> None:
        """Saves the state if it is time, or if the run has been asked to stop; then it stops."""
        if self.world.first and (stop or time.monotonic() - self.saved_at >= 60 * self.save_every):
            self.save()
            self.saved_at = time.monotonic()
        if stop:
            self.world.wait()  # a process that ends may take the others with it
            raise KeyboardInterrupt(f"interrupted; {self.advice}")

    def save(self) -> None:
        """Writes the state; where a tensor is not finite, the next batch will say so."""
        quantisation, average = self.model.quantisation, self.average
        content = {
            "run": {
                "network": dataclasses.asdict(self.config.network),
                "recipe": dataclasses.asdict(self.recipe),
                "seed": self.seed,
                "digest": self.digest,
                "teacher": self.teacher,
                **self.notes,
            },
            "environment": state.environment(self.device.type, self.world.size),
            "progress": state.progress_to_dict(self.at),
            "model": self.model.state_dict(),
            "quantisation": None if quantisation is None else dataclasses.asdict(quantisation),
            "optimizer": self.optimizer.state_dict(),
            "average": None if average is None else average.state_dict(),
            "signs": self.watch.state_dict(),
            "random": state.random_states(self.random),
        }
        try:
            state.write_state(self.state_path, content)
        except StateError as error:
            tqdm.write(f"{self.state_path} not written: {error}")

    def restore(self, content: Mapping[str, Any]) -> None:
        """Goes to where :meth:`save` was called. Raises StateError for another run's state."""
        if content["run"]["digest"] != self.digest:
            raise StateError("Data set must be the one that the run began with")
        if content["run"].get("teacher") != self.teacher:
            raise StateError(
                f"Teacher {self.recipe.teacher} must hold what it held when the run began"
            )
        self.at = Progress(**content["progress"])
        self._begin(BinaryNetwork(self.config.network) if self.at.phase else None)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.watch.load_state_dict(content["signs"])
        if content["quantisation"] is not None:
            self._quantise(Quantisation(**content["quantisation"]))
        state.restore_random_states(content["random"], self.random)
