"""The rules of a search: who tries what, what a lost lease means, when it is over.

A state machine without threads, sockets, storage or a clock of its own. What happens comes
in as a method call and is answered at once; what must be done besides goes to the outbox,
which the driver empties after each call. The driver keeps one promise: it acknowledges a
call only after every Store effect issued so far lies safely in the ledger.

A worker holds at most one attempt. Its lease is renewed by whatever it sends; when the
lease runs out, or a newer process takes over its id, the attempt is lost and the trial goes
back to the head of the queue. Each grant carries a fencing number that no other ever had,
so a worker that comes back late is told apart from the one that now holds the trial.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from collections.abc import Iterable

from hpo.attempts import OpenTrial, Past
from hpo.budget import Budget
from hpo.crew import NOBODY, Crew
from hpo.failures import RepeatedErrors, headline, may_retry
from hpo.leases import Leases, LiveWorker
from hpo.protocol import (
    NOTHING_SPENT,
    AskSampler,
    Attempt,
    Clock,
    EarlyEnd,
    Effect,
    Grant,
    Later,
    Rules,
    Spent,
    Stop,
    StoreAttempt,
    StoreCrew,
    StoreEarlyEnd,
    StoreReport,
    StoreSpent,
    StoreWorker,
    TellSampler,
    Verdict,
    WorkerInfo,
    WorkerRow,
)
from hpo.pruners import NoPruner, Pruner
from hpo.samplers.base import Answer, Exhausted, Proposal, Wait, seed_of
from hpo.trial import Failure, Report, TrialRecord, TrialState
from hpo.waiting import NOWHERE, Place, Waiting, place_of

# So many workers share one point that is ready before it is asked for. A few have none: a
# point that waits for nobody would only be left over when such a search is stopped.
_WORKERS_A_SPARE = 4


class Phase(enum.StrEnum):
    """Whether new trials are handed out."""

    SEARCHING = "SEARCHING"
    DRAINING = "DRAINING"


class Coordinator:
    """One search. Restored from what the ledger holds; a new search holds nothing."""

    def __init__(
        self,
        rules: Rules,
        clock: Clock,
        attempts: Iterable[Attempt] = (),
        workers: Iterable[WorkerRow] = (),
        spent: Spent = NOTHING_SPENT,
        crew: Crew = NOBODY,
        pruner: Pruner | None = None,
    ) -> None:
        self.rules = rules
        self.clock = clock
        self.phase = Phase.SEARCHING
        self.early_end: EarlyEnd | None = None
        self.early_words = ""
        self.best: TrialRecord | None = None
        # Of the completed trials.
        self.values: dict[str, float] = {}
        self.crew = crew
        self.outbox: list[Effect] = []
        self._open: dict[str, OpenTrial] = {}
        self._held_by: dict[int, OpenTrial] = {}
        # The attempts whose ends their workers know of, with their numbers.
        self._ended: dict[int, tuple[str, int]] = {}
        self._counts: collections.Counter[TrialState] = collections.Counter()
        self._queue = Waiting()
        # The fences of attempts that are to be alone.
        self._reserved: set[int] = set()
        self._leases = Leases(clock, rules.lease_s)
        self._suspending = False
        self._ticked_at, self._alone_s = clock.monotonic(), 0.0
        self._errors = RepeatedErrors(rules.same_error)
        self._budget = Budget(rules, clock, spent)
        self._pruner = pruner or NoPruner(rules.direction, steps=1, seed=rules.seed)
        self._asking: str | None = None
        self._created = 0
        self._fence = 0
        self._seq = 0
        self._restore(attempts, workers)

    # --- what is going on -------------------------------------------------------------

    @property
    def pending(self) -> list[TrialRecord]:
        """The trials that were proposed and have not ended."""
        return [trial.record for trial in self._open.values()]

    @property
    def work_left(self) -> bool:
        """Whether some trial has not ended or has yet to be proposed."""
        return bool(self._open) or not self._all_created

    @property
    def over(self) -> bool:
        """Whether no attempt runs and none will be handed out."""
        if self.phase is Phase.DRAINING:
            return not self._held_by
        return not self.work_left

    @property
    def worth_asking(self) -> int | None:
        """How many workers may learn something by asking now; None: all of them."""
        if self.phase is Phase.DRAINING or not self.work_left or self._queue.choosy:
            return None
        if self._reserved or self.crew.dismissed:
            return None
        return len(self._queue)

    @property
    def thinking(self) -> bool:
        """Whether the sampler was asked and has yet to answer."""
        return self._asking is not None

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers whose lease has not run out."""
        return [worker.row.info for worker in self._leases]

    def count(self, state: TrialState) -> int:
        """How many trials ended in ``state``."""
        return self._counts[state]

    def attempt_under(self, fence: int) -> Attempt | None:
        """The running attempt that was granted under ``fence``."""
        trial = self._held_by.get(fence)
        return trial.attempt if trial else None

    def number_of(self, trial_id: str, fence: int) -> int | None:
        """The number of the attempt that runs under ``fence``, or whose end its worker knows of."""
        running = self.attempt_under(fence)
        if running and running.record.trial_id == trial_id:
            return running.record.attempt
        return self._ended[fence][1] if self._knows_end(trial_id, fence) else None

    def attempt_of(self, incarnation: str) -> Attempt | None:
        """The running attempt that a worker's process holds."""
        worker = next((w for w in self._leases if w.row.info.incarnation == incarnation), None)
        return self.attempt_under(worker.fence) if worker else None

    # --- workers ----------------------------------------------------------------------

    def joined(self, info: WorkerInfo) -> None:
        """A worker starts, or starts again. It takes over its id from whoever had it."""
        known = self._leases.get(info.worker_id)
        if known and known.row.info.incarnation == info.incarnation:
            self._leases.renew(known)
            return
        if known:
            self._drop(known, f"worker {info.worker_id} was replaced by a newer process")
        self.outbox.append(StoreWorker(self._leases.add(info).row))

    def asked(self, worker_id: str, incarnation: str) -> Grant | Later | Stop:
        """A worker wants a trial. Asked again, it gets the one it already holds."""
        worker = self._leases.heard(worker_id, incarnation)
        if worker.fence:
            return Grant(self._held_by[worker.fence].attempt)
        if self.phase is Phase.DRAINING:
            return Stop("drained" if self.work_left else "done")
        if not self.work_left:
            return Stop("done")
        if worker_id in self.crew.dismissed:
            self._leases.wants(worker, False)
            return Stop("dismissed")
        waiting = self._take(place_of(worker.row.info))
        if waiting:
            self._leases.wants(worker, False)
            grant = Grant(self._hand_out(waiting, worker))
            if self.rules.ahead:
                self._ask_sampler()
            return grant
        self._leases.wants(worker, True)
        self._ask_sampler()
        return Later()

    def beat(self, worker_id: str, incarnation: str, fence: int) -> Verdict:
        """A worker is alive and works under ``fence`` (0: on nothing)."""
        worker = self._leases.heard(worker_id, incarnation)
        return Verdict.LOST if fence and worker.fence != fence else Verdict.GO_ON

    def left(self, worker_id: str, incarnation: str) -> None:
        """A worker leaves, having understood why; what it still holds is put back."""
        worker = self._leases.heard(worker_id, incarnation)
        self._drop(worker, f"worker {worker_id} left", counts=False)

    def scaled(self, size: int) -> None:
        """So many workers are wanted from now on; those too many leave when they ask again."""
        self.crew = self.crew.scaled(size)
        self.outbox.append(StoreCrew(self.crew))

    def moved(self, info: WorkerInfo) -> None:
        """A worker's trials run in another process, or on another device, than it said."""
        worker = self._leases.heard(info.worker_id, info.incarnation)
        worker.row = dataclasses.replace(worker.row, info=info)
        self.outbox.append(StoreWorker(worker.row))
        trial = self._held_by.get(worker.fence)
        if trial and trial.record.device != info.device:
            trial.change(device=info.device)
            self._put(trial)

    def beat_of(self, info: WorkerInfo) -> None:
        """A worker that does not speak for itself was seen to live."""
        worker = self._leases.get(info.worker_id)
        if worker and worker.row.info == info:
            self._leases.renew(worker)

    def died(self, info: WorkerInfo) -> None:
        """A worker was seen to be dead; what it held is lost."""
        worker = self._leases.get(info.worker_id)
        if worker and worker.row.info == info:
            self._drop(worker, f"worker {info.worker_id} died")

    # --- one attempt ------------------------------------------------------------------

    def reported(self, trial_id: str, fence: int, report: Report, final: bool = False) -> Verdict:
        """Metrics of one step. LOST where the attempt is no longer the sender's.

        A trial that is pruned ends here; what its worker still says of it is acknowledged.
        None is that has trained to its end already, which ``final`` says.
        """
        if self._knows_end(trial_id, fence):
            return Verdict.STOP
        trial = self._held(trial_id, fence)
        if trial is None:
            return Verdict.LOST
        self._note(trial, report)
        objective = report.metrics.get(self.rules.objective)
        if objective is not None and not math.isfinite(objective):
            error = f"{self.rules.objective} is {objective} at step {report.step}"
            trial.change(failure=Failure.NAN, error=error)
            self._put(trial)
            return Verdict.STOP
        if objective is not None and not final and self._pruner.prunes(trial_id, report.step):
            self._tell_end(trial)
            self._end(trial, TrialState.PRUNED)
            return Verdict.STOP
        return Verdict.SUSPEND if self._suspending else Verdict.GO_ON

    def resumed(self, trial_id: str, fence: int, step: int) -> Verdict:
        """The attempt goes on after ``step`` of the one before, whose reports become its own.

        Where that is further than any attempt has gone on from, those that were lost brought
        the trial on, and are counted no more: a long trial may outlive any number of workers.
        """
        trial = self._held(trial_id, fence)
        if trial is None:
            return Verdict.LOST
        for earlier in sorted(number for number in trial.earlier if number <= step):
            self._note(trial, Report(earlier, trial.earlier[earlier]))
        if trial.gain(step):
            self._put(trial)
        return Verdict.GO_ON

    def explained(self, trial_id: str, fence: int, failure: Failure, error: str) -> Verdict:
        """Why the attempt is about to end as failed."""
        trial = self._held(trial_id, fence)
        if trial is None:
            return Verdict.LOST
        # Stored, since a chief that comes back may be the one that hears of the end.
        trial.change(failure=failure, error=error)
        self._put(trial)
        return Verdict.GO_ON

    def ended(self, trial_id: str, fence: int, completed: bool) -> Verdict:
        """The attempt's end. Said again it is acknowledged again; a stranger's is LOST."""
        if self._knows_end(trial_id, fence):
            return Verdict.GO_ON
        trial = self._held(trial_id, fence)
        if trial is None:
            return Verdict.LOST
        if trial.record.failure is None and (error := self._missing(trial, completed)):
            trial.change(failure=Failure.CODE, error=error)
        failure = trial.record.failure
        self._tell_end(trial)
        if failure is Failure.PREEMPTED:
            # Saved and given back, or its worker has to go.
            self._lose(trial, trial.record.error or "", counts=False)
        elif failure:
            self._fail(trial, failure)
        else:
            self._end(trial, TrialState.COMPLETED)
        return Verdict.GO_ON

    # --- the sampler ------------------------------------------------------------------

    def proposed(self, trial_id: str, answer: Answer, implementation: str) -> None:
        """The sampler's answer to an :class:`AskSampler`."""
        if self._asking != trial_id:
            return
        self._asking = None
        if isinstance(answer, Exhausted):
            self._end_early(EarlyEnd.EXHAUSTED, "the sampler has no more points")
        elif isinstance(answer, Proposal):
            words = (implementation, answer.note)
            self._create(trial_id, answer, ": ".join(filter(None, words)))
            self._ask_sampler()
        else:
            assert isinstance(answer, Wait)

    # --- time and the end -------------------------------------------------------------

    def tick(self) -> None:
        """Time has passed: leases that ran out end here. To be called a few times a second."""
        for worker in self._leases.expired():
            self._drop(worker, f"worker {worker.row.info.worker_id} was not heard of in time")
        self._end_what_takes_too_long()
        self._charge()
        self._end_without_workers()
        self._ask_sampler()

    def drain(self, immediate: bool, suspend: bool = False) -> None:
        """Hand out nothing more; ``immediate`` also puts back what runs now.

        With ``suspend`` trials that can be saved are given back after their next step.
        """
        self.phase = Phase.DRAINING
        self._suspending = self._suspending or suspend
        if immediate:
            for trial in list(self._held_by.values()):
                self._lose(trial, "the search was stopped", counts=False)

    # --- inside -----------------------------------------------------------------------

    @property
    def _all_created(self) -> bool:
        wanted = self.rules.wanted
        exhausted = self.early_end is EarlyEnd.EXHAUSTED
        return exhausted or (wanted is not None and self._created >= wanted)

    def _take(self, place: Place) -> str | None:
        """The waiting trial that a worker at ``place`` may run now."""
        if not self._queue.choosy and not self._reserved:
            return self._queue.first()
        working = {place_of(w.row.info): self._held_by[w.fence] for w in self._leases if w.fence}
        reserved = {busy for busy, trial in working.items() if trial.alone}
        staffed = {place_of(w.row.info) for w in self._leases}
        return self._queue.take(place, staffed, working, reserved)

    def _knows_end(self, trial_id: str, fence: int) -> bool:
        return fence in self._ended and self._ended[fence][0] == trial_id

    def _tell_end(self, trial: OpenTrial) -> None:
        self._ended[trial.attempt.fence] = (trial.record.trial_id, trial.record.attempt)

    def _held(self, trial_id: str, fence: int) -> OpenTrial | None:
        """The running trial under ``fence``, its worker's lease renewed."""
        trial = self._held_by.get(fence)
        if trial is None or trial.record.trial_id != trial_id:
            return None
        worker = self._leases.get(trial.record.worker)
        assert worker is not None
        self._leases.renew(worker)
        return trial

    def _ask_sampler(self) -> None:
        """Asks for one more point where a worker waits for one; one ask at a time.

        Where points do not depend on results, some are kept ready for whoever asks next.
        """
        if self.phase is Phase.DRAINING:
            return
        if self._asking is not None or self._all_created:
            return
        ahead = len(self._leases) // _WORKERS_A_SPARE if self.rules.ahead else 0
        if self._leases.hungry + ahead > len(self._queue):
            self._asking = f"{self._created:04d}"
            self.outbox.append(AskSampler(self._asking))

    def _create(self, trial_id: str, proposal: Proposal, implementation: str) -> None:
        rules = self.rules
        record = TrialRecord(
            trial_id=trial_id,
            attempt=1,
            state=TrialState.WAITING,
            params=proposal.params,
            engine=rules.engine,
            sampler=rules.sampler,
            sampler_impl=implementation,
            seed=seed_of(rules.seed, trial_id),
            study_digest=rules.study_digest,
            tag=proposal.tag,
            epochs=proposal.epochs,
            resume_from=proposal.resume_from,
            queued_at=self.clock.wall(),
            asked_seq=self._next_seq(),
        )
        self._created += 1
        self._put(OpenTrial(Attempt(record)))
        self._queue.add(trial_id)

    def _missing(self, trial: OpenTrial, completed: bool) -> str:
        """What a worker that ends a trial has left unsaid; "" if it said all."""
        if not completed:
            return "the worker did not say why it failed"
        if trial.record.value is not None:
            return ""
        seen = sorted({name for step in trial.history.values() for name in step}) or ["nothing"]
        return (
            f"the objective {self.rules.objective!r} was never reported, "
            f"but {', '.join(seen)}: name one of these as OBJECTIVE"
        )

    def _hand_out(self, trial_id: str, worker: LiveWorker) -> Attempt:
        trial = self._open[trial_id]
        self._fence += 1
        trial.change(
            state=TrialState.RUNNING,
            worker=worker.row.info.worker_id,
            device=worker.row.info.device,
            started_at=self.clock.wall(),
        )
        trial.attempt = dataclasses.replace(trial.attempt, fence=self._fence)
        worker.fence = self._fence
        self._held_by[self._fence] = trial
        trial.begun = self.clock.monotonic()
        if trial.alone:
            self._reserved.add(self._fence)
        self._put(trial)
        return trial.attempt

    def _put(self, trial: OpenTrial) -> None:
        self._open[trial.record.trial_id] = trial
        self.outbox.append(StoreAttempt(trial.attempt))

    def _note(self, trial: OpenTrial, report: Report) -> None:
        trial.note(report, self.rules)
        self.outbox.append(StoreReport(trial.record, report))
        objective = report.metrics.get(self.rules.objective)
        if objective is not None and math.isfinite(objective):
            self._pruner.reported(trial.record.trial_id, report.step, objective)

    def _fail(self, trial: OpenTrial, failure: Failure) -> None:
        """Ends an attempt that failed; the trial gets another where the rules allow it."""
        record = trial.record
        if may_retry(self.rules, failure, trial.failed):
            self._release(trial)
            self._close(trial, TrialState.FAILED, None)
            self._requeue(trial, trial.attempt.lost)
        else:
            self._end(trial, TrialState.FAILED)
        if failure is Failure.CODE and self._errors.noted(record.trial_id, record.error):
            words = f"{self.rules.same_error} trials failed alike: {headline(record.error)}"
            self._end_early(EarlyEnd.ERROR, words)

    def _end_early(self, reason: EarlyEnd, words: str) -> None:
        self.early_end, self.early_words = reason, words
        self.outbox.append(StoreEarlyEnd(reason, words))
        if reason is not EarlyEnd.EXHAUSTED:
            self.drain(immediate=True)

    def _charge(self) -> None:
        """Counts the time that the running trials took; the last of it ends the search."""
        running = [w for w in self._leases if w.fence]
        self._budget.charge(len(running), sum(w.row.info.gpus for w in running))
        spent = self._budget.to_store()
        if spent:
            self.outbox.append(StoreSpent(spent))
        if self._budget.exceeded and self.early_end is None and self.work_left:
            self._end_early(EarlyEnd.BUDGET, self._budget.exceeded)

    def _end_without_workers(self) -> None:
        """Nobody is there and nobody comes: whoever waits for this search should know."""
        now = self.clock.monotonic()
        # While it stood still itself nobody could have come.
        self._alone_s += min(now - self._ticked_at, self.rules.lease_s)
        self._ticked_at = now
        if any(True for _ in self._leases):
            self._alone_s = 0.0
        if self._alone_s > self.rules.without_workers_s and not self.early_end and self.work_left:
            words = f"no worker was there for {self._alone_s:.0f} s"
            advice = "start workers, then `launch.py resume`"
            self._end_early(EarlyEnd.NO_WORKERS, f"{words}: {advice}")

    def _end(self, trial: OpenTrial, state: TrialState) -> None:
        """The trial's last attempt is over, and with it the trial."""
        self._release(trial)
        self._close(trial, state, self._next_seq())
        record = trial.record
        del self._open[record.trial_id]
        self._note_end(record)
        self._pruner.ended(record.trial_id, state)
        history = tuple(Report(step, metrics) for step, metrics in sorted(trial.history.items()))
        self.outbox.append(TellSampler(dataclasses.replace(record, history=history)))

    def _note_end(self, record: TrialRecord) -> None:
        self._counts[record.state] += 1
        if record.state is TrialState.COMPLETED and record.value is not None:
            self.values[record.trial_id] = record.value
            than = self.best.value if self.best else None
            if self.rules.direction.better(record.value, than):
                self.best = record

    def _end_what_takes_too_long(self) -> None:
        limit, now = self.rules.trial_timeout_s, self.clock.monotonic()
        for trial in list(self._held_by.values()):
            if limit is not None and now - trial.begun > limit:
                error = f"the trial ran for longer than {limit:g} s"
                trial.change(failure=Failure.TIMEOUT, error=error)
                # Its worker may be about to say the same, and sends the trial's log with it.
                self._tell_end(trial)
                self._end(trial, TrialState.FAILED)

    def _close(self, trial: OpenTrial, state: TrialState, seq: int | None) -> None:
        trial.change(state=state, ended_at=self.clock.wall(), ended_seq=seq)
        if state is TrialState.FAILED:
            trial.change(value=None, best_step=None)
        self.outbox.append(StoreAttempt(trial.attempt))

    def _release(self, trial: OpenTrial) -> None:
        """Takes the attempt from whoever holds it."""
        holder = self._leases.get(trial.record.worker)
        if holder and holder.fence == trial.attempt.fence:
            holder.fence = 0
        self._held_by.pop(trial.attempt.fence, None)
        self._reserved.discard(trial.attempt.fence)

    def _drop(self, worker: LiveWorker, why: str, counts: bool = True) -> None:
        """The worker is gone, and what it held is lost."""
        trial = self._held_by.get(worker.fence)
        if trial:
            self._lose(trial, why, counts)
        self._leases.remove(worker)
        self.outbox.append(StoreWorker(worker.gone()))

    def _lose(self, trial: OpenTrial, why: str, counts: bool) -> None:
        """Ends a running attempt as PREEMPTED and queues the next one."""
        lost = trial.attempt.lost + counts
        if lost >= self.rules.lost_attempts:
            why += f"; {lost} attempts were lost in this way, no more are made"
            trial.change(failure=Failure.PREEMPTED, error=why)
            self._end(trial, TrialState.FAILED)
        else:
            trial.change(failure=Failure.PREEMPTED, error=why)
            self._release(trial)
            self._close(trial, TrialState.FAILED, None)
            self._requeue(trial, lost)

    def _requeue(self, trial: OpenTrial, lost: int) -> None:
        """A next attempt at the same point, ahead of points that were never tried."""
        holder = self._leases.get(trial.record.worker)
        again = trial.again(lost, self.clock.wall())
        self._put(again)
        if again.alone:
            place = place_of(holder.row.info) if holder else NOWHERE
            self._queue.add_alone(again.record.trial_id, place)
        else:
            self._queue.add_first(again.record.trial_id)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _restore(self, attempts: Iterable[Attempt], workers: Iterable[WorkerRow]) -> None:
        """Takes up what the ledger holds: running attempts keep their fencing numbers."""
        for row in workers:
            if row.left_at is None:
                self._leases.restore(row)
        past = Past(attempts)
        for record in past.records:
            self._pruner.restore(record, self.rules.objective)
        self._fence, self._seq, self._ended = past.fence, past.seq, past.told
        self._created = len(past)
        for trial in past.trials(self.clock.monotonic()):
            self._restore_trial(trial)

    def _restore_trial(self, trial: OpenTrial) -> None:
        record = trial.record
        if record.state.ended:
            self._note_end(record)
            return
        self._open[record.trial_id] = trial
        if record.state is TrialState.WAITING:
            if trial.alone:
                self._queue.add_alone(record.trial_id, NOWHERE)
            else:
                self._queue.add(record.trial_id)
            return
        self._held_by[trial.attempt.fence] = trial
        if trial.alone:
            self._reserved.add(trial.attempt.fence)
        worker = self._leases.get(record.worker)
        if worker:
            worker.fence = trial.attempt.fence
        else:
            self._lose(trial, "its worker was gone when the chief came back", counts=True)
