"""The strict double's runs: feeds, targets, variables, order, buffers, queues, blocks."""

import threading

import numpy as np
import pytest

from tests.mps.double import Double, Refused, sdk
from tests.mps.messages import (
    RUN,
    RUN_ASYNC,
    Block,
    Dictionary,
    List,
    Session,
    normal,
    numbers,
    session,
)

F32 = sdk.value("MPSDataTypeFloat32")
ADD = "additionWithPrimaryTensor:secondaryTensor:name:"
MULTIPLY = "multiplicationWithPrimaryTensor:secondaryTensor:name:"
IDENTITY = "identityWithTensor:name:"
RESHAPE = "reshapeTensor:withShape:name:"
READ = "readVariable:name:"
ASSIGN = "assignVariable:withValueOfTensor:name:"
ONE = np.ones(3, np.float32)


def refuses(said, function, *arguments):
    with pytest.raises(Refused, match=said):
        function(*arguments)


# Feeds and targets --------------------------------------------------------------------------------


def test_feeds_come_in_an_order_of_their_own(s):
    made = [s.placeholder([i + 1], name=f"p{i}") for i in range(5)]
    total = made[0]
    for p in made[1:]:
        total = s.send(ADD, total, s.send("meanOfTensor:axes:name:", p, numbers([0]), None), None)
    feeds = {p: np.ones(i + 1, "f") for i, p in enumerate(made)}
    order = s.double.items(s.double.send(s.compile(feeds, [total]), "feedTensors"))
    assert set(order) == set(made)
    assert order != made
    two = {p: feeds[p] for p in made[:2]}
    pair = s.send(ADD, made[0], made[1], None)
    order = s.double.items(s.double.send(s.compile(two, [pair]), "feedTensors"))
    assert order == [made[1], made[0]]
    with session(faults=["feeds_in_given_order"]) as faulty:
        a, b = faulty.placeholder([1], name="a"), faulty.placeholder([2], name="b")
        executable = faulty.compile(
            {a: np.ones(1, "f"), b: np.ones(2, "f")}, [faulty.send(ADD, a, b, None)]
        )
        assert faulty.double.items(faulty.double.send(executable, "feedTensors")) == [a, b]


def test_feeds_must_fit_the_placeholders(s):
    x, y = s.placeholder([3]), s.placeholder([3], name="y")
    total = s.send(ADD, x, y, None)
    refuses("'y' is needed", s.compile, {x: ONE}, [total])
    refuses("has shape \\(4,\\)", s.compile, {x: np.ones(4, "f"), y: ONE}, [total])
    refuses("is Int32", s.compile, {x: np.ones(3, "i4"), y: ONE}, [total])
    refuses("no placeholder", s.compile, {x: ONE, y: ONE, total: ONE}, [total])
    refuses("no target", s.compile, {x: ONE, y: ONE}, [])
    refuses("twice", s.compile, {x: ONE, y: ONE}, [total, total])
    single = s.placeholder([1], name="one")
    scalar = s.send(RESHAPE, single, numbers([]), None)
    refuses("has rank 0", s.compile, {single: np.ones(1, "f")}, [scalar])
    other = Session(s.double)
    z = other.placeholder([3])
    refuses("another graph's", s.compile, {x: ONE, y: ONE, z: ONE}, [total])
    refuses("another graph's", s.compile, {z: ONE}, [z])


def prepared(s, **more):
    x, y = s.placeholder([2, 2], name="x"), s.placeholder([2], name="y")
    total = s.send(ADD, x, y, None)
    feeds = {x: normal(2, 2), y: normal(2)}
    executable = s.compile(feeds, [total])
    order = s.double.items(s.double.send(executable, "feedTensors"))
    inputs = [s.data(feeds[t])[0] for t in order]
    results = [s.data(np.zeros((2, 2), "f"))]
    return executable, inputs, results, feeds[x] + feeds[y]


def run(s, executable, inputs, results, selector=RUN, descriptor=None):
    results = None if results is None else List(tuple(results))
    return s.double.send(executable, selector, s.queue, List(tuple(inputs)), results, descriptor)


def test_inputs_and_results_are_checked(s):
    executable, inputs, [(result, buffer)], wanted = prepared(s)
    run(s, executable, inputs, [result])
    view = s.double.view(buffer, 16)
    np.testing.assert_allclose(np.frombuffer(view, "f").reshape(2, 2), wanted)
    refuses("input 0.*has shape", run, s, executable, inputs[::-1], [result])
    refuses("1 inputs for 2", run, s, executable, inputs[:1], [result])
    refuses("0 results for 1", run, s, executable, inputs, [])
    flat = s.data(np.zeros(4, "f"))[0]
    refuses("result 0 has shape", run, s, executable, inputs, [flat])
    whole = s.data(np.zeros((2, 2), "i4"))[0]
    refuses("result 0 is Int32", run, s, executable, inputs, [whole])
    same = next(d for d in inputs if d.shape == (2, 2))
    refuses("both input and result", run, s, executable, inputs, [same])
    fresh = s.double.items(run(s, executable, inputs, None))
    assert [d.shape for d in fresh] == [(2, 2)]


def test_one_buffer_takes_one_result(s):
    x = s.placeholder([3])
    twice = [s.send(IDENTITY, x, None), s.send(ADD, x, x, None)]
    executable = s.compile({x: ONE}, twice)
    result = s.data(ONE)[0]
    refuses("two results", run, s, executable, [s.data(ONE)[0]], [result, result])


def test_tensor_data_must_fit_its_buffer(s):
    buffer = s.double.send(s.device, "newBufferWithLength:options:", 12, 0)
    assert bytes(s.double.view(buffer, 12)) == b"\xbd" * 12

    def data(shape, kind="initWithMTLBuffer:shape:dataType:", *more):
        return s.double.new("MPSGraphTensorData", kind, buffer, numbers(shape), F32, *more)

    data([3])
    refuses("12 bytes for 16", data, [4])
    refuses("rank 0", data, [])
    refuses("zero extent", data, [0])
    refuses("only packed rows", data, [3], "initWithMTLBuffer:shape:dataType:rowBytes:", 16)
    refuses("is nil", s.double.send, s.device, "newBufferWithLength:options:", 0, 0)
    refuses("shared memory", s.double.send, s.device, "newBufferWithLength:options:", 4, 32)
    refuses("13 bytes of a buffer", s.double.view, buffer, 13)


def test_buffers_are_read_when_they_run(s):
    x = s.placeholder([3])
    executable = s.compile({x: ONE}, [s.send(ADD, x, x, None)])
    data, buffer = s.data(ONE)
    result, out = s.data(ONE)
    np.frombuffer(s.double.view(buffer, 12), "f")[:] = 5
    run(s, executable, [data], [result])
    np.testing.assert_array_equal(np.frombuffer(s.double.view(out, 12), "f"), [10] * 3)


def test_a_dropped_buffer_shows(s):
    buffer = s.double.send(s.device, "newBufferWithLength:options:", 4, 0)
    view = s.double.view(buffer, 4)
    s.double.drop(buffer)
    assert bytes(view) == b"\xdd" * 4
    refuses("used after its pool ended", s.double.view, buffer, 4)


def test_run_without_compiling(s):
    x = s.placeholder([3])
    y = s.send(ADD, x, x, None)
    data, result = s.data(ONE)[0], s.data(ONE)
    form = "runWithMTLCommandQueue:feeds:targetOperations:resultsDictionary:"
    pairs = Dictionary(((x, data),)), None, Dictionary(((y, result[0]),))
    assert s.send(form, s.queue, *pairs) is None
    np.testing.assert_array_equal(np.frombuffer(s.double.view(result[1], 12), "f"), [2] * 3)
    form = "runWithMTLCommandQueue:feeds:targetTensors:targetOperations:"
    found = s.send(form, s.queue, pairs[0], List((y,)), None)
    assert s.double.send(found, "count") == 1


# Variables and order ------------------------------------------------------------------------------


def test_variables_belong_to_the_graph(s):
    v = s.variable(ONE)
    more = s.send(ADD, s.send(READ, v, None), s.constant(ONE), None)
    step = s.send(ASSIGN, v, more, None)
    for i in range(3):
        np.testing.assert_array_equal(s.run({}, [more], [step])[0], ONE * (i + 2))
    np.testing.assert_array_equal(s.run({}, [v])[0], ONE * 4)
    # Another executable of the same graph sees them too, and they do not follow a buffer.
    new = s.placeholder([3])
    upload = s.send(ASSIGN, v, new, None)
    s.run({new: ONE * 9}, [s.send(IDENTITY, new, None)], [upload])
    np.testing.assert_array_equal(s.run({}, [more])[0], ONE * 10)


def test_assigns_are_checked(s):
    v = s.variable(ONE)
    x = s.placeholder([3])
    refuses("is no variable", s.send, ASSIGN, x, x, None)
    refuses("is no variable", s.send, READ, x, None)
    refuses("a value of", s.send, ASSIGN, v, s.placeholder([1]), None)
    refuses("several data types", s.send, ASSIGN, v, s.placeholder([3], "int32"), None)


def test_two_assigns_of_one_variable(s):
    v, x = s.variable(ONE), s.placeholder([3])
    both = [s.send(ASSIGN, v, x, None), s.send(ASSIGN, v, s.send(IDENTITY, x, None), None)]
    refuses("assigned twice", s.compile, {x: ONE}, [s.send(IDENTITY, x, None)], both)


def test_a_read_that_nothing_orders(s):
    v, x = s.variable(ONE), s.placeholder([3])
    step = s.send(ASSIGN, v, x, None)
    read = s.send(READ, v, None)
    refuses("nothing orders the two", s.compile, {x: ONE}, [read], [step])
    direct = s.send(ADD, v, x, None)
    refuses("nothing orders the two", s.compile, {x: ONE}, [direct], [step])
    refuses("is a target of a run that assigns it", s.compile, {x: ONE}, [v], [step])
    # Each on its own is fine, and so is a read that the assign depends on.
    s.run({}, [read])
    s.run({x: ONE}, [s.send(IDENTITY, x, None)], [step])
    tied = s.send(ASSIGN, v, direct, None)
    np.testing.assert_array_equal(s.run({x: ONE}, [direct], [tied])[0], ONE * 2)


def dependent(s, operations, make):
    """Tensors (and what else `make` leaves) made after some operations."""
    made = []

    def block():
        made.extend(make())
        return List(tuple(m for m in made if m.class_name == "MPSGraphTensor"))

    kind = Block("NSArray<MPSGraphTensor>", (), block)
    s.send("controlDependencyWithOperations:dependentBlock:name:", List(operations), kind, None)
    return made


def test_order_by_control_dependency():
    with session(version=(18, 0)) as s:
        v, x = s.variable(ONE), s.placeholder([3])
        read = s.send(READ, v, None)
        before = s.double.send(read, "operation")

        def assign():
            same = s.send(IDENTITY, x, None)
            return [same, s.send(ASSIGN, v, same, None)]

        same, step = dependent(s, (before,), assign)
        got = s.run({x: ONE * 5}, [read, same], [step])
        np.testing.assert_array_equal(got[0], ONE)
        np.testing.assert_array_equal(s.run({}, [read])[0], ONE * 5)
        # After the assign: the new value, which keeps the assign from being pruned; hangs on 26.
        later = s.send(ASSIGN, v, x, None)
        (after,) = dependent(s, (later,), lambda: [s.send(READ, v, None)])
        np.testing.assert_array_equal(s.run({x: ONE * 7}, [after])[0], ONE * 7)
    with session(version=(26, 0)) as s:
        v, x = s.variable(ONE), s.placeholder([3])
        later = s.send(ASSIGN, v, x, None)
        (after,) = dependent(s, (later,), lambda: [s.send(READ, v, None)])
        refuses("hang", s.compile, {x: ONE}, [after])


def test_the_graph_must_outlive_its_executables():
    double = Double()
    with double.pool():
        s = Session(double)
        v = s.variable(ONE)
        executable = double.keep(s.compile({}, [s.send(READ, v, None)]))
    with double.pool():
        result, _ = s.data(ONE)
        run(s, executable, [], [result])
    double.drop(s.graph)
    with double.pool():
        refuses("has ended", run, s, executable, [], [result])


# Runs that go on by themselves --------------------------------------------------------------------


def handler(done, seen=None):
    def handle(results, error):
        if seen is not None:
            seen.append((threading.current_thread(), results, error))
        done.set()

    return Block("void", ("NSArray<MPSGraphTensorData>", "NSError"), handle)


def described(s, block):
    d = s.double.new("MPSGraphExecutableExecutionDescriptor")
    s.double.send(d, "setCompletionHandler:", block)
    return d


def test_completion_handlers_are_called_on_another_thread(s):
    executable, inputs, [(result, buffer)], wanted = prepared(s)
    done, seen = threading.Event(), []
    d = described(s, handler(done, seen))
    with s.double.held():
        run(s, executable, inputs, [result], RUN_ASYNC, d)
        assert not done.is_set()
        assert np.frombuffer(s.double.view(buffer, 16), "f")[0] == 0
    assert done.wait(5)
    thread, _, error = seen[0]
    assert thread is not threading.current_thread()
    assert error is None
    view = np.frombuffer(s.double.view(buffer, 16), "f")
    np.testing.assert_allclose(view.reshape(2, 2), wanted)


def test_what_a_run_uses_must_live_until_it_is_done(s):
    executable, inputs, [(result, _)], _ = prepared(s)
    with s.double.held():
        with s.double.pool():
            run(s, executable, inputs, [result], RUN_ASYNC)
        s.double.drop(result)
    refuses("ended before the run", _settle, s)


def test_inputs_must_not_be_written_meanwhile(s):
    executable, inputs, [(result, _)], _ = prepared(s)
    with s.double.held():
        run(s, executable, inputs, [result], RUN_ASYNC)
        inputs[0].memory[:] = 0
    refuses("written to before", _settle, s)


def _settle(s):
    s.queue.worker.submit(lambda: None).result()
    s.double.raise_failures()


def test_concurrent_runs_need_results_of_their_own(s):
    executable, inputs, _, _ = prepared(s)
    with s.double.held():
        run(s, executable, inputs, None, RUN_ASYNC)
        refuses("overwrite each other", run, s, executable, inputs, None, RUN_ASYNC)
    _drain(s)


def _drain(s):
    s.queue.worker.submit(lambda: None).result()
    s.double.failures.clear()


def test_errors_of_the_device_arrive_with_the_handler(s):
    executable, inputs, [(result, _)], _ = prepared(s)
    done, said = threading.Event(), []

    def handle(results, error):
        said.append(s.double.text(s.double.send(error, "localizedDescription")))
        done.set()

    d = described(s, Block("void", ("NSArray<MPSGraphTensorData>", "NSError"), handle))
    s.double.device_errors.append("the GPU hung")
    run(s, executable, inputs, [result], RUN_ASYNC, d)
    assert done.wait(5)
    assert said == ["the GPU hung"]


def test_a_handler_that_raises_is_told_with_the_next_message(s):
    executable, inputs, [(result, _)], _ = prepared(s)

    def handle(results, error):
        raise ValueError("oh")

    d = described(s, Block("void", ("NSArray<MPSGraphTensorData>", "NSError"), handle))
    run(s, executable, inputs, [result], RUN_ASYNC, d)
    s.queue.worker.submit(lambda: None).result()
    refuses("the block raised ValueError", s.placeholder, [1])


def test_waiting_while_the_device_is_held_would_never_end(s):
    executable, inputs, [(result, _)], _ = prepared(s)
    with s.double.held():
        refuses("wait for ever", run, s, executable, inputs, [result])


def test_command_buffers(s):
    executable, inputs, [(result, out)], wanted = prepared(s)
    double = s.double
    buffer = double.send("MPSCommandBuffer", "commandBufferFromCommandQueue:", s.queue)
    encode = "encodeToCommandBuffer:inputsArray:resultsArray:executionDescriptor:"
    arguments = List(tuple(inputs)), List((result,)), None
    raw = double.send(s.queue, "commandBuffer")
    refuses("wants a MPSCommandBuffer", double.send, executable, encode, raw, *arguments)
    double.send(executable, encode, buffer, *arguments)
    refuses("before commit", double.send, buffer, "waitUntilCompleted")
    double.send(buffer, "commit")
    double.send(buffer, "waitUntilCompleted")
    view = np.frombuffer(double.view(out, 16), "f")
    np.testing.assert_allclose(view.reshape(2, 2), wanted)
    refuses("committed twice", double.send, buffer, "commit")
    refuses("was committed", double.send, executable, encode, buffer, *arguments)


def test_two_threads_must_not_be_inside_together(s):
    x = s.placeholder([1])
    seen = []

    def intrude():
        try:
            with s.double.pool():
                s.send(ADD, x, x, None)
        except Refused as error:
            seen.append(str(error))

    def block():
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        return List((x,))

    both = Block("NSArray<MPSGraphTensor>", (), block)
    flag = s.placeholder([1], "bool", "flag")
    s.send("ifWithPredicateTensor:thenBlock:elseBlock:name:", flag, both, both, None)
    assert seen
    assert "another thread is inside" in seen[0]


# Control flow -------------------------------------------------------------------------------------

IF = "ifWithPredicateTensor:thenBlock:elseBlock:name:"
WHILE = "whileWithInitialInputs:before:after:name:"
FOR = "forLoopWithNumberOfIterations:initialBodyArguments:body:name:"
BRANCH = ("NSArray<MPSGraphTensor>", ())


def branches(s, flag, then, otherwise):
    return s.send(IF, flag, Block(*BRANCH, then), Block(*BRANCH, otherwise), None)


def test_if(s):
    flag, x, y = s.placeholder([1], "bool", "p"), s.placeholder([3]), s.placeholder([3], name="y")
    calls = []

    def then():
        calls.append("then")
        return List((s.send(ADD, x, y, None),))

    def otherwise():
        calls.append("else")
        return List((s.send(MULTIPLY, x, x, None),))

    (out,) = s.double.items(branches(s, flag, then, otherwise))
    assert calls == ["then", "else"]
    feeds = {x: ONE * 3, y: ONE}
    for value, wanted in ((True, 4), (False, 9)):
        got = s.run({flag: np.array([value]), **feeds}, [out])[0]
        np.testing.assert_array_equal(got, ONE * wanted)
    refuses("'y' is needed", s.compile, {flag: np.array([True]), x: ONE}, [out])


def test_if_refuses(s):
    flag, x = s.placeholder([1], "bool", "p"), s.placeholder([3])
    inner = []

    def leak():
        inner.append(s.send(ADD, x, x, None))
        return List((inner[0],))

    def plain():
        return List((x,))

    branches(s, flag, leak, plain)
    refuses("unusable outside", s.send, ADD, inner[0], x, None)
    refuses("unusable outside", s.compile, {x: ONE}, [inner[0]])
    refuses("nil, which aborts", branches, s, flag, lambda: None, plain)
    refuses("return nothing", branches, s, flag, lambda: List(()), lambda: List(()))
    refuses("1 tensors and 2", branches, s, flag, plain, lambda: List((x, x)))
    small = s.placeholder([1], name="small")
    refuses("shapes", branches, s, flag, plain, lambda: List((small,)))
    refuses("not one element", branches, s, s.placeholder([3], "bool"), plain, plain)
    refuses("must be one of", branches, s, small, plain, plain)
    refuses("no else block", s.send, IF, flag, Block(*BRANCH, plain), None, None)

    def compiles():
        s.compile({x: ONE}, [x])
        return List((x,))

    refuses("inside a block", branches, s, flag, compiles, plain)

    def breaks():
        raise KeyError("lost")

    refuses("the block raised KeyError", branches, s, flag, breaks, plain)

    def raw():
        return (x,)

    refuses("of Python type tuple", branches, s, flag, raw, plain)


def test_an_assign_in_a_branch_is_pruned_unless_the_result_needs_it(s):
    flag, x, v = s.placeholder([1], "bool", "p"), s.placeholder([3]), s.variable(ONE)

    def forgotten():
        s.send(ASSIGN, v, x, None)
        return List((x,))

    (out,) = s.double.items(branches(s, flag, forgotten, lambda: List((x,))))
    s.run({flag: np.array([True]), x: ONE * 5}, [out])
    np.testing.assert_array_equal(s.run({}, [v])[0], ONE)

    def kept():
        step = s.send(ASSIGN, v, x, None)
        return List(tuple(dependent(s, (step,), lambda: [s.send(IDENTITY, x, None)])))

    (out,) = s.double.items(branches(s, flag, kept, lambda: List((x,))))
    s.run({flag: np.array([False]), x: ONE * 5}, [out])
    np.testing.assert_array_equal(s.run({}, [v])[0], ONE)
    s.run({flag: np.array([True]), x: ONE * 5}, [out])
    np.testing.assert_array_equal(s.run({}, [v])[0], ONE * 5)


def loop(s, initial, test, step):
    def before(inputs, results):
        values = s.double.items(inputs)
        for value in values:
            s.double.send(results, "addObject:", value)
        return test(values)

    def after(inputs):
        return List(tuple(step(s.double.items(inputs))))

    array = "NSArray<MPSGraphTensor>"
    return s.send(
        WHILE,
        List(tuple(initial)),
        Block("MPSGraphTensor", (array, "NSMutableArray<MPSGraphTensor>"), before),
        Block(array, (array,), after),
        None,
    )


def test_while(s):
    x, limit = s.placeholder([1]), s.placeholder([1], name="limit")

    def test(values):
        less = s.send("lessThanWithPrimaryTensor:secondaryTensor:name:", values[0], limit, None)
        return s.send(RESHAPE, less, numbers([]), None)

    (out,) = s.double.items(loop(s, [x], test, lambda v: [s.send(ADD, v[0], v[0], None)]))
    got = s.run({x: np.array([3], "f"), limit: np.array([100], "f")}, [out])[0]
    assert got.tolist() == [192]
    wide = s.send("lessThanWithPrimaryTensor:secondaryTensor:name:", x, limit, None)
    refuses("not rank 0", loop, s, [x], lambda v: wide, lambda v: v)
    refuses("tensors and 1", loop, s, [x], test, lambda v: [v[0], v[0]])
    zero = s.constant(np.zeros(1, "f"))
    refuses("constant 0.0", loop, s, [zero], test, lambda v: v)
    refuses("without inputs", loop, s, [], test, lambda v: v)


def test_for(s):
    n, x = s.placeholder([1], "int32", "n"), s.placeholder([1])
    float32 = sdk.value("MPSDataTypeFloat32")

    def body(index, arguments):
        (value,) = s.double.items(arguments)
        at = s.send(RESHAPE, index, numbers([1]), None)
        at = s.send("castTensor:toType:name:", at, float32, None)
        return List((s.send(ADD, value, at, None),))

    array = "NSArray<MPSGraphTensor>"
    block = Block(array, ("MPSGraphTensor", array), body)
    (out,) = s.double.items(s.send(FOR, n, List((x,)), block, None))
    got = s.run({n: np.array([5], "i4"), x: np.array([0.5], "f")}, [out])[0]
    assert got.tolist() == [10.5]
    refuses("without body arguments", s.send, FOR, n, List(()), block, None)
    refuses("must be one of Int32", s.send, FOR, x, List((x,)), block, None)
