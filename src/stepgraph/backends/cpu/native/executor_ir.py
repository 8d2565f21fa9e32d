"""The machine code behind `pool`: how threads share a program's records. LLVM IR as text.

Everything that threads agree on is one 64-bit *ticket*: run number (2 bits), record (18), tasks of
that record claimed from its end (22), tasks not yet claimed (22). A thread claims tasks by
compare-and-swap on the ticket, so a claim names its record without looking anything up, and a
thread that comes late from an earlier record or run cannot claim what is gone. Whoever finishes a
record's last task opens the next one by storing a new ticket. So there is no barrier that all
threads must reach: a thread that the system has put aside holds nobody up unless a task of its own
is unfinished. (A thread put aside for four runs may find the very ticket it knew. It then claims
what that ticket says now, which is right; whether to stop is not told by tickets alone.)

Claims take a share of what is left (``remaining >> shift``, at least one), large first and small
towards the end. Threads of even number take it from the front, those of odd number from the end:
what one of two threads had in its cache after one launch, a layer's weights say, is for the most
part what it wants in the next launch and the next run, however much either is slowed down. A record
with one task runs at once on the thread that opened it; nobody is told.

Whoever has nothing to claim watches the ticket for a bounded number of turns, then looks at it a
bounded number of times more, each time after yielding the processor to whoever else wants it, then
sleeps on a condition variable. To be woken takes 50 microseconds and more on a virtual machine,
as long as many a step's kernels; the yielding saves that while a batch is prepared. ``sleepers``,
ticket and stop are accessed in sequentially consistent order: either the sleeper sees the new
ticket, or the opener sees the sleeper.

State (bytes): 0 ticket, 64 finished tasks of the record, 128 program, 136 number of records,
144 turns to watch, 152 stop, 160 shift, 168 times to yield, 192 sleepers, 256 mutex,
384 condition; 512 in all. A record is {function, arguments, tasks, unused}, 8 bytes each.
"""

from __future__ import annotations

from stepgraph.backends.cpu.native.target import Target

STATE_BYTES = 512
TICKET, PROGRAM, RECORDS, TURNS, STOP, SHIFT, YIELDS = 0, 128, 136, 144, 152, 160, 168
SLEEPERS = 192
MUTEX, CONDITION = 256, 384
# The ticket's fields, lowest first: tasks not claimed, tasks claimed from the end, record, run.
_TASK_BITS, _RECORD_BITS = 22, 18
_RECORD_AT = 2 * _TASK_BITS
_RUN_AT = _RECORD_AT + _RECORD_BITS
_RECORD_MASK = (1 << _RECORD_BITS) - 1
MAXIMUM_TASKS = (1 << _TASK_BITS) - 1  # of a record
MAXIMUM_RECORDS = _RECORD_MASK  # of a run; the last number says that it is over
OVER = _RECORD_MASK << _RECORD_AT  # a ticket of no tasks, what a run leaves behind
EXPORTS = ("executor_participate", "executor_run", "executor_stop")

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.isb(i32)", "call void @llvm.aarch64.isb(i32 15)"),
}

_SLEEP = """
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()

define internal void @yield() nounwind {
  %1 = call i32 @sched_yield()
  ret void
}

; Sleeps until a new ticket or a stop (or for no reason), unless the ticket is no longer %seen.
define internal void @sleep(ptr %state, i64 %seen) noinline nounwind {
  %mutex = getelementptr i8, ptr %state, i64 256
  %condition = getelementptr i8, ptr %state, i64 384
  %sleepers = getelementptr i8, ptr %state, i64 192
  %1 = call i32 @pthread_mutex_lock(ptr %mutex)
  %2 = atomicrmw add ptr %sleepers, i64 1 seq_cst
  %ticket = load atomic i64, ptr %state seq_cst, align 8
  %same = icmp eq i64 %ticket, %seen
  ; Asked again: four runs after it was asked before, the ticket at a stop may be the one seen then.
  %stop.place = getelementptr i8, ptr %state, i64 152
  %stop = load atomic i64, ptr %stop.place seq_cst, align 8
  %going = icmp eq i64 %stop, 0
  %still = and i1 %same, %going
  br i1 %still, label %wait, label %leave
wait:
  %3 = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %leave
leave:
  %4 = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %5 = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

; Wakes whoever sleeps; to be called after a new ticket was stored.
define internal void @wake(ptr %state) nounwind {
  %sleepers = getelementptr i8, ptr %state, i64 192
  %count = load atomic i64, ptr %sleepers seq_cst, align 8
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %some, label %none
some:
  %mutex = getelementptr i8, ptr %state, i64 256
  %condition = getelementptr i8, ptr %state, i64 384
  ; Holding the mutex once means that a counted sleeper is really waiting.
  %1 = call i32 @pthread_mutex_lock(ptr %mutex)
  %2 = call i32 @pthread_mutex_unlock(ptr %mutex)
  %3 = call i32 @pthread_cond_broadcast(ptr %condition)
  br label %none
none:
  ret void
}
"""

# One thread never waits for another, so nothing is needed where there are no POSIX threads.
_NO_SLEEP = """
define internal void @yield() nounwind { ret void }
define internal void @sleep(ptr %state, i64 %seen) nounwind { ret void }
define internal void @wake(ptr %state) nounwind { ret void }
"""

_BODY = """
; Runs the records from %first on that have at most one task, then opens the next one for all
; threads, or ends the run.
define internal void @open(ptr %state, i64 %run, i64 %first, i64 %thread) nounwind {
entry:
  %program.place = getelementptr i8, ptr %state, i64 128
  %program = load ptr, ptr %program.place, align 8
  %records.place = getelementptr i8, ptr %state, i64 136
  %records = load i64, ptr %records.place, align 8
  br label %next
next:
  %r = phi i64 [ %first, %entry ], [ %r.after, %skip ]
  %more = icmp slt i64 %r, %records
  br i1 %more, label %look, label %end
look:
  %record = getelementptr [4 x i64], ptr %program, i64 %r
  %tasks.place = getelementptr i8, ptr %record, i64 16
  %tasks = load i64, ptr %tasks.place, align 8
  %several = icmp sgt i64 %tasks, 1
  br i1 %several, label %share, label %alone
alone:
  %one = icmp eq i64 %tasks, 1
  br i1 %one, label %do, label %skip
do:
  %function = load ptr, ptr %record, align 8
  %arguments.place = getelementptr i8, ptr %record, i64 8
  %arguments = load ptr, ptr %arguments.place, align 8
  call void %function(ptr %arguments, i64 0, i64 %thread)
  br label %skip
skip:
  %r.after = add i64 %r, 1
  br label %next
share:
  %finished = getelementptr i8, ptr %state, i64 64
  store atomic i64 0, ptr %finished monotonic, align 8
  %r.bits = shl i64 %r, RECORD_AT
  %low = or i64 %r.bits, %tasks
  %opened = or i64 %run, %low
  store atomic i64 %opened, ptr %state seq_cst, align 8
  call void @wake(ptr %state)
  ret void
end:
  %ended = or i64 %run, OVER
  store atomic i64 %ended, ptr %state seq_cst, align 8
  call void @wake(ptr %state)
  ret void
}

; Takes part in runs: a worker (%leave = 0) until a stop, the caller (%leave = 1) until the end
; of the run it started.
define void @executor_participate(ptr %state, i64 %thread, i64 %leave) nounwind {
entry:
  %finished = getelementptr i8, ptr %state, i64 64
  %program.place = getelementptr i8, ptr %state, i64 128
  %turns.place = getelementptr i8, ptr %state, i64 144
  %stop.place = getelementptr i8, ptr %state, i64 152
  %shift.place = getelementptr i8, ptr %state, i64 160
  %turns = load i64, ptr %turns.place, align 8
  %shift = load i64, ptr %shift.place, align 8
  %yields.place = getelementptr i8, ptr %state, i64 168
  %yields = load i64, ptr %yields.place, align 8
  %caller = icmp ne i64 %leave, 0
  %odd = and i64 %thread, 1
  %backwards = icmp ne i64 %odd, 0
  br label %look
look:
  %ticket.now = load atomic i64, ptr %state acquire, align 8
  br label %judge
judge:
  %ticket = phi i64 [ %ticket.now, %look ], [ %ticket.other, %claim ],
                    [ %ticket.new, %watch ], [ %ticket.later, %linger ]
  %remaining = and i64 %ticket, TASKS
  %nothing = icmp eq i64 %remaining, 0
  br i1 %nothing, label %idle, label %claim

claim:
  %share = lshr i64 %remaining, %shift
  %none = icmp eq i64 %share, 0
  %count = select i1 %none, i64 1, i64 %share
  %taken = select i1 %backwards, i64 %count, i64 0
  %taken.bits = shl i64 %taken, BACK_AT
  %less = sub i64 %ticket, %count
  %rest = add i64 %less, %taken.bits
  %swap = cmpxchg ptr %state, i64 %ticket, i64 %rest acq_rel acquire
  %ticket.other = extractvalue { i64, i1 } %swap, 0
  %claimed = extractvalue { i64, i1 } %swap, 1
  br i1 %claimed, label %work, label %judge
work:
  %r.bits = lshr i64 %ticket, RECORD_AT
  %r = and i64 %r.bits, RECORDS
  %program = load ptr, ptr %program.place, align 8
  %record = getelementptr [4 x i64], ptr %program, i64 %r
  %function = load ptr, ptr %record, align 8
  %arguments.place = getelementptr i8, ptr %record, i64 8
  %arguments = load ptr, ptr %arguments.place, align 8
  %tasks.place = getelementptr i8, ptr %record, i64 16
  %tasks = load i64, ptr %tasks.place, align 8
  %back.bits = lshr i64 %ticket, BACK_AT
  %back = and i64 %back.bits, TASKS
  %end = sub i64 %tasks, %back
  %first.front = sub i64 %end, %remaining
  %first.back = sub i64 %end, %count
  %first = select i1 %backwards, i64 %first.back, i64 %first.front
  %last = add i64 %first, %count
  br label %task
task:
  %t = phi i64 [ %first, %work ], [ %t.after, %task ]
  call void %function(ptr %arguments, i64 %t, i64 %thread)
  %t.after = add i64 %t, 1
  %again = icmp slt i64 %t.after, %last
  br i1 %again, label %task, label %report
report:
  %before = atomicrmw add ptr %finished, i64 %count acq_rel
  %after = add i64 %before, %count
  %complete = icmp eq i64 %after, %tasks
  br i1 %complete, label %advance, label %look
advance:
  %run = and i64 %ticket, RUNS
  %r.next = add i64 %r, 1
  call void @open(ptr %state, i64 %run, i64 %r.next, i64 %thread)
  br label %look

idle:
  %r.idle = and i64 %ticket, OVER
  %over = icmp eq i64 %r.idle, OVER
  %home = and i1 %caller, %over
  br i1 %home, label %done, label %check
check:
  %stop = load atomic i64, ptr %stop.place acquire, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %done, label %watch
watch:
  %turn = phi i64 [ 0, %check ], [ %turn.after, %patience ]
  PAUSE
  %ticket.new = load atomic i64, ptr %state acquire, align 8
  %changed = icmp ne i64 %ticket.new, %ticket
  br i1 %changed, label %judge, label %patience
patience:
  %turn.after = add i64 %turn, 1
  %patient = icmp slt i64 %turn.after, %turns
  br i1 %patient, label %watch, label %courtesy
courtesy:
  %yielded = phi i64 [ 0, %patience ], [ %yielded.after, %linger ]
  %polite = icmp slt i64 %yielded, %yields
  br i1 %polite, label %linger, label %tired
linger:
  call void @yield()
  %yielded.after = add i64 %yielded, 1
  %ticket.later = load atomic i64, ptr %state acquire, align 8
  %changed.later = icmp ne i64 %ticket.later, %ticket
  br i1 %changed.later, label %judge, label %courtesy
tired:
  call void @sleep(ptr %state, i64 %ticket)
  br label %look
done:
  ret void
}

; Runs a program on the calling thread and whoever takes part; returns when it is done.
define void @executor_run(ptr %state, ptr %program, i64 %records) nounwind {
  %program.place = getelementptr i8, ptr %state, i64 128
  store ptr %program, ptr %program.place, align 8
  %records.place = getelementptr i8, ptr %state, i64 136
  store i64 %records, ptr %records.place, align 8
  %ticket = load atomic i64, ptr %state monotonic, align 8
  %old = and i64 %ticket, RUNS
  %run = add i64 %old, RUN_ONE
  call void @open(ptr %state, i64 %run, i64 0, i64 0)
  call void @executor_participate(ptr %state, i64 0, i64 1)
  ret void
}

; Sends the workers home; only between runs.
define void @executor_stop(ptr %state) nounwind {
  %stop.place = getelementptr i8, ptr %state, i64 152
  store atomic i64 1, ptr %stop.place seq_cst, align 8
  %ticket = load atomic i64, ptr %state monotonic, align 8
  %other = add i64 %ticket, RUN_ONE
  store atomic i64 %other, ptr %state seq_cst, align 8
  call void @wake(ptr %state)
  ret void
}
"""

# Names in the text above. Runs are a mask of 64 bits in two's complement.
_NUMBERS = {
    "RECORD_AT": _RECORD_AT,
    "BACK_AT": _TASK_BITS,
    "TASKS": MAXIMUM_TASKS,
    "RECORDS": _RECORD_MASK,
    "RUNS": -(1 << _RUN_AT),
    "RUN_ONE": 1 << _RUN_AT,
    "OVER": OVER,
}


def executor_ir(target: Target, *, threads: bool = True) -> str:
    """The executor's module.

    Args:
        target: decides the instruction that a watching thread rests with.
        threads: whether POSIX threads' functions may be called.
    """
    declaration, pause = _PAUSE.get(target.architecture, ("", ""))
    body = _BODY.replace("PAUSE", pause)
    for name, number in _NUMBERS.items():
        body = body.replace(name, str(number))
    return "\n".join([declaration, _SLEEP if threads else _NO_SLEEP, body])
