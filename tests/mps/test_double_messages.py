"""The strict double: what it refuses of a message, before any meaning."""

import numpy as np
import pytest

from tests.mps.double import Double, Refused, sdk
from tests.mps.double.rules import RULES
from tests.mps.messages import (
    Block,
    Data,
    Dictionary,
    List,
    Number,
    data_type,
    numbers,
)

F32 = sdk.value("MPSDataTypeFloat32")
ADD = "additionWithPrimaryTensor:secondaryTensor:name:"
PLACEHOLDER = "placeholderWithShape:dataType:name:"
CONVOLUTION = "MPSGraphConvolution2DOpDescriptor"


def refuses(said, function, *arguments):
    with pytest.raises(Refused, match=said):
        function(*arguments)


def test_every_rule_is_a_selector_of_the_sdk():
    known = sdk.facts()["classes"]["MPSGraph"]["methods"]
    assert [s for s in RULES if s not in known] == []


def test_unknown_class_selector_function(s):
    refuses("no class MPSGrph", s.double.new, "MPSGrph")
    refuses("no class MPSGrph", s.double.send, "MPSGrph", "new")
    refuses("has no - addWith", s.send, "addWithPrimaryTensor:secondaryTensor:name:")
    refuses("has no \\+ options", s.double.send, "MPSGraph", "options")
    refuses("no function", s.double.function, "MPSCreateDevice")
    refuses("not modelled", s.double.function, "MTLCopyAllDevicesWithObserver", 1, 2)
    refuses("arguments", s.double.function, "MTLCreateSystemDefaultDevice", 1)


def test_inherited_and_protocol_methods_are_known(s):
    x = s.variable(np.ones(3, "f"))
    operation = s.double.send(x, "operation")
    assert operation.class_name == "MPSGraphVariableOp"
    assert s.double.text(s.double.send(operation, "name")) == "v"
    assert s.double.send(s.device, "hasUnifiedMemory") is True
    buffer = s.double.send(s.device, "newBufferWithLength:options:", 4, 0)
    assert s.double.send(buffer, "allocatedSize") == 4
    s.double.drop(buffer)


def test_unavailable_and_wrong_kind_of_initializer(s):
    refuses("has no init", s.double.new, "MPSCommandBuffer")
    refuses("has no \\+ new", s.double.send, "MPSGraphTensor", "new")
    refuses("is no initializer", s.double.new, "MPSGraph", "options")
    refuses("initializer is for", s.double.send, s.graph, "init")
    refuses("comes from a graph's compile", s.double.new, "MPSGraphExecutable")


def test_argument_count(s):
    x = s.placeholder([2])
    refuses("2 arguments, not 3", s.send, ADD, x, x)
    refuses("4 arguments, not 3", s.send, ADD, x, x, None, None)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (3, "C int 3, but the SDK wants NSArray"),
        ([3], "Python type list"),
        ((3,), "Python type tuple"),
        (numbers([3]).items, "Python type tuple"),
        (List((3,)), "element 0: a C int 3, but the SDK wants NSNumber"),
        (List((Number(3.0),)), "3.0 where a whole number"),
        (List((Number(True),)), "True where a whole number"),
        (List((Number(np.int64(3)),)), "Number of .* type int64"),
        (List((None,)), "nil"),
        (List([Number(3)]), "tuple"),
        (Number(3), "NSNumber"),
        ("3", "an NSString"),
        (Data(np.ones(3)), "an NSData"),
        (numbers([-1]), "known at run time only"),
        (numbers([0]), "zero extent"),
        (numbers([1] * 17), "rank 17"),
        (numbers([2**16, 2**15]), "2\\^31"),
        (None, "without a shape"),
    ],
)
def test_shapes(s, argument, said):
    refuses(said, s.send, PLACEHOLDER, argument, F32, "x")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (Number(F32), "an NSNumber"),
        (float(F32), "C float"),
        (True, "C BOOL"),
        (np.int64(F32), "type int64"),
        (0, "no type"),
        (268435456, "no type that a tensor"),
        (17, "no value of MPSDataType"),
        (None, "type NoneType"),
        ("float32", "an NSString"),
    ],
)
def test_enums(s, argument, said):
    refuses(said, s.send, PLACEHOLDER, numbers([3]), argument, "x")


def test_names_are_strings_or_nil(s):
    x = s.placeholder([2])
    for bad in (3, b"x", Number(3), x):
        refuses("argument 2", s.send, ADD, x, x, bad)
    s.send(ADD, x, x, None)


def test_objects_of_the_wrong_class(s):
    x = s.placeholder([2])
    operation = s.double.send(x, "operation")
    refuses(
        "a MPSGraphOperation, but the SDK wants a MPSGraphTensor", s.send, ADD, x, operation, ""
    )
    refuses("nil, but MPSGraphTensor", s.send, ADD, x, None, "")
    refuses("C int", s.send, ADD, x, 3, "")
    refuses("an NSArray", s.send, ADD, x, List((x,)), "")
    refuses("Python type ndarray", s.send, ADD, x, np.ones(2), "")
    refuses(
        "element 0: a MPSGraphOperation",
        s.send,
        "concatTensors:dimension:name:",
        List((operation,)),
        0,
        "",
    )


def test_objects_that_do_not_conform_to_a_protocol(s):
    refuses(
        "does not conform to MTLDevice",
        s.double.send,
        "MPSGraphDevice",
        "deviceWithMTLDevice:",
        s.queue,
    )
    refuses(
        "does not conform to MTLBuffer",
        s.double.new,
        "MPSGraphTensorData",
        "initWithMTLBuffer:shape:dataType:",
        s.device,
        numbers([2]),
        F32,
    )


def test_c_numbers(s):
    x = s.placeholder([2])
    axis = "reductionSumWithTensor:axis:name:"
    for bad in (Number(0), 0.0, True, None, np.int64(0)):
        refuses("argument 1", s.send, axis, x, bad, "")
    leaky = "leakyReLUWithTensor:alpha:name:"
    for bad in (1, Number(0.1), True, np.float32(0.1), None):
        refuses("argument 1", s.send, leaky, x, bad, "")
    flag = "cumulativeSumWithTensor:axis:exclusive:reverse:name:"
    refuses("argument 2.*BOOL", s.send, flag, x, 0, 1, False, "")
    d = s.double.new(CONVOLUTION)
    refuses("-1 does not fit NSUInteger", s.double.send, d, "setStrideInX:", -1)
    refuses("5 is no value of MPSGraphPaddingStyle", s.double.send, d, "setPaddingStyle:", 5)
    s.double.send(d, "setPaddingStyle:", 2)
    assert s.double.send(d, "paddingStyle") == 2
    refuses("dataLayout was never set", s.double.send, d, "dataLayout")


def test_flag_enums_may_be_combined(s):
    refuses("no value of MPSGraphReducedPrecision", s.double.send, _descriptor(s), FAST, 8)
    s.double.send(_descriptor(s), FAST, 6)


FAST = "setReducedPrecisionFastMath:"


def _descriptor(s):
    return s.double.send("MPSGraphCompilationDescriptor", "new")


def test_blocks_of_another_signature(s):
    x = s.placeholder([1])
    good = Block("NSArray<MPSGraphTensor>", (), lambda: List((x,)))
    selector = "ifWithPredicateTensor:thenBlock:elseBlock:name:"
    for bad in (
        Block("void", (), lambda: None),
        Block("MPSGraphTensor", (), lambda: x),
        Block("NSArray<MPSGraphTensor>", ("MPSGraphTensor",), lambda y: List((x,))),
    ):
        refuses("but the SDK wants block", s.send, selector, x, bad, good, "")
    refuses("Python type function", s.send, selector, x, lambda: List((x,)), good, "")
    refuses("nil, but block", s.send, selector, x, None, good, "")


def test_dictionaries(s):
    x = s.placeholder([2])
    y = s.send(ADD, x, x, None)
    kind = s.double.new("MPSGraphShapedType", "initWithShape:dataType:", numbers([2]), F32)
    compile_ = "compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:"

    def compiled(feeds):
        return s.send(compile_, s.graph_device, feeds, List((y,)), None, None)

    refuses("a key stands twice", compiled, Dictionary(((x, kind), (x, kind))))
    refuses("MPSGraphTensor, but the SDK wants a MPSGraphShapedType", compiled, _pairs(x, x))
    refuses("MPSGraphShapedType, but the SDK wants a MPSGraphTensor", compiled, _pairs(kind, kind))
    refuses("nil, but NSDictionary", compiled, None)
    refuses("an NSArray", compiled, List((x,)))
    compiled(_pairs(x, kind))


def _pairs(key, value):
    return Dictionary(((key, value),))


def test_no_pool_no_objects():
    double = Double()
    graph = double.new("MPSGraph")
    with pytest.raises(Refused, match="no autorelease pool"):
        double.send(graph, PLACEHOLDER, numbers([2]), F32, "x")
    with double.pool():
        x = double.send(graph, PLACEHOLDER, numbers([2]), F32, "x")
        with pytest.raises(Refused, match="does not own"):
            double.drop(x)
        kept = double.keep(x)
        assert kept is x
        y = double.send(graph, ADD, x, x, None)
    with double.pool():
        double.send(graph, ADD, x, x, None)
        with pytest.raises(Refused, match="used after its pool ended"):
            double.send(graph, ADD, x, y, None)
    double.drop(x)
    with double.pool(), pytest.raises(Refused, match="used after its pool ended"):
        double.send(x, "shape")
    double.drop(graph)
    with double.pool(), pytest.raises(Refused, match="used after its pool ended"):
        double.send(graph, PLACEHOLDER, numbers([2]), F32, "x")
    assert double.alive() == {}


def test_leaks_are_counted(s):
    before = s.double.alive()
    with s.double.pool():
        data, buffer = s.data(np.ones(3, "f"))
    s.double.drop(buffer)
    assert (s.double.alive() - before) == {"MPSGraphTensorData": 1, "AGXBuffer": 1}
    s.double.drop(data)
    assert s.double.alive() == before


def test_pools_end_in_order():
    double = Double()
    first, second = double.pool(), double.pool()
    first.__enter__()
    second.__enter__()
    with pytest.raises(Refused, match="reverse order"):
        first.__exit__(None, None, None)


def test_tensors_of_another_graph(s):
    other = s.double.new("MPSGraph")
    y = s.double.send(other, PLACEHOLDER, numbers([2]), F32, "y")
    x = s.placeholder([2])
    refuses("another graph's", s.send, ADD, x, y, None)


def test_the_system_decides_what_there_is():
    from tests.mps.messages import session

    with session(version=(17, 0)) as old:
        x = old.placeholder([2])
        refuses("needs iOS 18.0", old.send, "reciprocalSquareRootWithTensor:name:", x, None)
        refuses("needs iOS 26.0", old.double.send, _descriptor(old), FAST, 0)
        assert old.double.system() == "iOS 17.0"
    with session(version=(15, 0)) as old:
        x = old.placeholder([2])
        refuses("16.0", old.send, "transposeTensor:permutation:name:", x, numbers([0]), None)
        refuses("15.4", old.send, "squeezeTensor:name:", x, None)


def test_arrays_and_strings(s):
    x = s.placeholder([2, 3])
    shape = s.double.send(x, "shape")
    assert s.double.items(shape) == [2, 3]
    assert s.double.send(shape, "count") == 2
    number = s.double.send(shape, "objectAtIndex:", 1)
    assert s.double.send(number, "integerValue") == 3
    refuses("beyond", s.double.send, shape, "objectAtIndex:", 2)
    refuses("no NSArray", s.double.items, x)
    refuses("no NSString", s.double.text, x)
    # What came back may be sent again.
    assert s.shape(s.send(PLACEHOLDER, shape, F32, "y")) == (2, 3)


def test_constants(s):
    data = "constantWithData:shape:dataType:"
    refuses("12 bytes of data for 8", s.send, data, Data(np.ones(3, "f")), numbers([2]), F32)
    refuses("row-major", s.send, data, Data(np.ones((4, 4), "f")[:, ::2]), numbers([4, 2]), F32)
    scalar = "constantWithScalar:shape:dataType:"
    refuses("255", s.send, scalar, 1.0, numbers([1]), data_type("bool"))
    refuses("loses bits", s.send, scalar, 2.0**60, numbers([1]), data_type("int64"))
    refuses("does not fit", s.send, scalar, 2.0**31, numbers([1]), data_type("int32"))
    refuses("1.5 as int32", s.send, scalar, 1.5, numbers([1]), data_type("int32"))
    array = np.arange(6, dtype="f").reshape(2, 3)
    c = s.constant(array)
    array[:] = 0
    np.testing.assert_array_equal(s.run({}, [c])[0], np.arange(6).reshape(2, 3))
