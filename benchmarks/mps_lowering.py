"""How long it takes to say a network's training step to MPSGraph; runs on any machine.

    python benchmarks/mps_lowering.py [MODEL] [BATCH_SIZE]

Prints the time of the compiler's passes, the time to build the messages (they go to a recorder,
which sends nothing), how many there are, and the memory planned.
"""

import sys
import time

from stepgraph.backends.mps.builder import Builder
from stepgraph.backends.mps.device import lowered_program
from stepgraph.backends.mps.lowering import LOWERINGS
from stepgraph.backends.mps.plan import plan_memory
from stepgraph.backends.mps.recording import Recorder, every_message
from stepgraph.backends.mps.session import Session
from stepgraph.backends.mps.state import MpsState
from stepgraph.runs.learner import build_model

ROUNDS = 3


def main(name: str = "resnet50", batch_size: str = "64") -> None:
    model = build_model(name, [32, 32, 3], 10, {})
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer="sgd", loss=loss, device="reference")
    graph = model.runtime.graph
    step = model.runtime.step("train", (False,)).executable
    feeds = {tensor: (int(batch_size), *shape[1:]) for tensor, shape in step.feeds.items()}
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        program = lowered_program(graph, feeds, step.targets, step.operations)
        passed = time.perf_counter()
        recorder = Recorder()
        session = Session(recorder)
        state = MpsState(session, graph.variables)
        before = len(recorder.messages)
        ready = time.perf_counter()
        builder = Builder(recorder, state.graph, session.version, LOWERINGS, state.variable)
        builder.build(program)
        times.append((passed - start, time.perf_counter() - ready))
        session.close()
    passes, lowering = (min(column) for column in zip(*times, strict=True))
    count = sum(1 for _ in every_message(recorder.messages[before:]))
    print(f"{name}, batches of {batch_size}: {len(program.operations())} operations")
    print(f"passes    {passes:6.3f} s")
    print(f"lowering  {lowering:6.3f} s, {count} messages")
    print(plan_memory(program))


if __name__ == "__main__":
    main(*sys.argv[1:])
