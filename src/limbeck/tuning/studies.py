"""Searches in an Optuna storage: trials are begun, finished and taken over there, by any number of processes.

A value of a trial is a function of the seed, the contender, the trial's number, the key, and the trials that are done:
so one process that is killed and resumed draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, OptunaError, UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from limbeck.errors import as_request, shown
from limbeck.seeds import derive
from limbeck.tuning.budget import Spent
from limbeck.tuning.settings import Settings, as_text
from limbeck.tuning.space import Choices, Domain, Space

JOURNAL = "journal.log"
RECORD, OWNER, EXCESS = "record", "owner", "excess"
RANDOM = 10
"""Trials that are drawn without looking at those before."""
ENOUGH = 10
"""Whole trials from which on it is estimated which settings mattered."""
SILENCE = 600.0
"""Seconds without a finished epoch of any of its stages after which a trial of another machine is taken over."""
STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "refused": TrialState.FAIL,
}


def open_storage(place: str | None, folder: Path) -> BaseStorage:
    """The storage at an address such as sqlite:///search.db or a path; without one, a journal in the folder.

    Raises:
        RequestError: It cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if place is None:
        _mend(own(folder))
        return _journal(own(folder))
    with as_request(lambda reason: f"--storage {shown(place)} cannot be opened: {reason}"):
        return RDBStorage(place) if "://" in place else _journal(Path(place).absolute())


def own(folder: Path) -> Path:
    """The journal of a search that has a storage for itself."""
    return folder.absolute() / JOURNAL


def _journal(path: Path) -> BaseStorage:
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def _mend(path: Path) -> None:
    """Cut off a line that a killed process has written half, and its lock; nobody else is at work here."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            path.write_bytes(content[:whole])


def release(storage: BaseStorage) -> None:
    """Say of all trials that are not finished that their processes are gone; nobody else may be at work here."""
    for study in storage.get_all_studies():
        number = storage.get_study_id_from_name(study.study_name)
        for one in storage.get_all_trials(number, deepcopy=False, states=(TrialState.RUNNING,)):
            place = storage.get_trial_id_from_study_id_trial_number(number, one.number)
            storage.set_trial_user_attr(place, OWNER, {"released": time.time()})


class Study:
    """The trials of one contender, or of the fresh trainings.

    Args:
        storage: Where they are recorded.
        name: The same in all processes that work on one search.
        mode: "max" where a higher value is better, else "min".
        seed: What values are a function of.
        shared: Whether other processes may be at work in the storage.
        drawn_by: With the seed, what values are a function of; by default the name.
    """

    def __init__(
        self, storage: BaseStorage, name: str, mode: str, seed: int, shared: bool, drawn_by: str | None = None
    ) -> None:
        self.storage, self.name, self.seed, self.shared = storage, name, seed, shared
        self.drawn_by = name if drawn_by is None else drawn_by
        with as_request(lambda reason: f"the storage of trials does not work: {reason}"):
            self.study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize" if mode == "max" else "minimize",
                sampler=self._sampler(0, ""),
                load_if_exists=True,
            )
        self._heard: dict[int, tuple[Any, float]] = {}

    def start(self, most: int) -> Trial | None:
        """A new trial of at most so many; None where others have begun the last one."""
        trial = self.study.ask()
        if self._is_excess(trial, most):
            return None
        self._own(trial)
        return trial

    def left(self, most: int | None = None) -> list[Trial]:
        """The trials that were begun by processes that are gone, to be done again; at most so many in all."""
        gone = [one for one in self._trials() if one.state == TrialState.RUNNING and self._gone(one)]
        found = []
        for one in filter(self._taken, gone):
            trial = Trial(self.study, self._id(one.number))
            if most is None or not self._is_excess(trial, most):
                found.append(trial)
                self._own(trial)
        return found

    def busy(self) -> bool:
        """Whether others are still at work on trials."""
        return any(one.state == TrialState.RUNNING for one in self._trials())

    def beat(self, trial: Trial) -> None:
        """Say, where others can see it, that a trial is alive.

        What the storage cannot take now does not end the training: `finish` comes to it, or the next epoch.
        """
        with suppress(OptunaError, OSError):
            self._own(trial)

    def settings(self, trial: Trial, space: Space, own: Settings) -> Settings:
        """The values of a trial by key: the first one's are the recipe's own."""
        if trial.number == 0:
            known = self.study.get_trials(deepcopy=False)[0].params
            for key, value in own.items():
                if key not in known:
                    drawn = _distribution(space[key])
                    stored = as_text(value) if isinstance(space[key], Choices) else value
                    self.storage.set_trial_param(self._id(0), key, drawn.to_internal_repr(stored), drawn)
            return own
        return {key: self._drawn(trial, key, domain) for key, domain in space.items()}

    def finish(self, trial: Trial, record: Mapping[str, Any]) -> None:
        """Record what became of a trial: its "state", "value" (None of one that failed), "epochs", and the rest."""
        try:
            trial.set_user_attr(RECORD, dict(record))
            state = record["state"]
            if state == "pruned" and record["epochs"] not in self._frozen(trial.number).intermediate_values:
                trial.report(record["value"], record["epochs"])
            self.study.tell(trial, record["value"] if state == "complete" else None, state=STATES[state])
        except (UpdateFinishedTrialError, ValueError):  # it was taken for dead, and somebody else has done it
            if not self._frozen(trial.number).state.is_finished():
                raise

    def records(self) -> list[dict[str, Any]]:
        """What was recorded of the finished trials, by their numbers."""
        done = [one for one in self._trials() if one.state.is_finished() and RECORD in one.user_attrs]
        return [{"number": one.number, **one.user_attrs[RECORD]} for one in done]

    def spent(self) -> Spent:
        """Trials that were begun, and the seconds of those that are done."""
        return Spent(len(self._trials()), sum(one["seconds"] for one in self.records()))

    def importances(self, keys: Sequence[str]) -> dict[str, float]:
        """How much each key had to do with the value, as shares of 1; {} of too few whole trials."""
        whole = [one for one in self._trials() if one.state == TrialState.COMPLETE]
        known = [key for key in keys if len({str(one.params[key]) for one in whole if key in one.params}) > 1]
        if len(whole) < ENOUGH or not known:
            return {}
        try:
            found = optuna.importance.get_param_importances(self.study, params=known)
        except (OptunaError, ValueError, RuntimeError):
            return {}
        return {key: float(share) for key, share in found.items()}

    def _is_excess(self, trial: Trial, most: int) -> bool:
        """Whether others have begun so many before it; then it is given up, also where that was about to be done."""
        if sum(one.number < trial.number for one in self._trials()) < most:
            return False
        trial.set_user_attr(EXCESS, True)
        self.study.tell(trial, state=TrialState.FAIL)
        return True

    def _drawn(self, trial: Trial, key: str, domain: Domain) -> Any:
        self.study.sampler = self._sampler(trial.number, key)
        if isinstance(domain, Choices):
            texts = {as_text(one): one for one in domain.choices}
            return texts[trial.suggest_categorical(key, list(texts))]
        drawn = _distribution(domain)
        if isinstance(drawn, IntDistribution):
            return trial.suggest_int(key, drawn.low, drawn.high, step=drawn.step)
        return domain.rounded(trial.suggest_float(key, drawn.low, drawn.high, log=domain.log, step=domain.step))

    def _own(self, trial: Trial) -> None:
        if self.shared:
            process = os.getpid()
            mine = {"host": socket.gethostname(), "process": process, "began": _began(process), "at": time.time()}
            trial.set_user_attr(OWNER, mine)

    def _sampler(self, number: int, key: str) -> TPESampler:
        seed = derive(self.seed, "tune", self.drawn_by, number, key) % 2**32
        return TPESampler(seed=seed, n_startup_trials=RANDOM, multivariate=False, constant_liar=True)

    def _trials(self) -> list[FrozenTrial]:
        return [one for one in self.study.get_trials(deepcopy=False) if EXCESS not in one.user_attrs]

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _taken(self, one: FrozenTrial) -> bool:
        """Whether this process, of several that see a trial's owner gone, is the one that does it again.

        A study of one name can be made once, in every storage: who makes it has the trial.
        """
        if not self.shared:
            return True
        owner = hashlib.sha256(json.dumps(one.user_attrs.get(OWNER), sort_keys=True).encode()).hexdigest()[:16]
        try:
            self.storage.create_new_study(self.study.directions, f"{self.name}, trial {one.number} after {owner}")
        except DuplicatedStudyError:
            return False
        return True

    def _gone(self, one: FrozenTrial) -> bool:
        owner = one.user_attrs.get(OWNER)
        if not self.shared or (owner is not None and "released" in owner):
            return True
        if owner is not None and owner["host"] == socket.gethostname():
            return not _alive(owner["process"], owner.get("began"))
        now = time.monotonic()
        heard, since = self._heard.setdefault(one.number, (owner, now))
        if heard != owner:
            self._heard[one.number] = (owner, now)
        return heard == owner and now - since > SILENCE


def _distribution(domain: Domain) -> Any:
    if isinstance(domain, Choices):
        return CategoricalDistribution([as_text(one) for one in domain.choices])
    low, high, step = domain.low, domain.high, domain.step
    if step is None:
        return FloatDistribution(low, high, log=domain.log)
    high = low + int((high - low) / step + 1e-9) * step
    whole = all(isinstance(one, int) for one in (low, step))
    return IntDistribution(int(low), int(high), step=int(step)) if whole else FloatDistribution(low, high, step=step)


def _alive(process: int, began: str | None) -> bool:
    """Whether a process of this machine is there, and the same one: its number may be another's by now."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return process != os.getpid() and (began is None or began == _began(process))


def _began(process: int) -> str | None:
    """When a process began, as Linux tells it: the boot, and the ticks since; None where that is not known."""
    try:
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {ticks}"
    except (OSError, IndexError):
        return None
