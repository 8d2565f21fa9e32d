"""Is a device right? A training step on it beside float64, op by op and as a whole.

`verify` takes a compiled model, `verify_graph` any graph, `verify_ops` every op by itself. The
command ``stepgraph verify`` does the same from a terminal.
"""

from stepgraph.verification.entry import verify as verify
from stepgraph.verification.entry import verify_graph as verify_graph
from stepgraph.verification.report import Comparison as Comparison
from stepgraph.verification.report import OperationCheck as OperationCheck
from stepgraph.verification.report import QuantityCheck as QuantityCheck
from stepgraph.verification.report import Report as Report
from stepgraph.verification.reproduction import reproduce as reproduce
from stepgraph.verification.samples import verify_ops as verify_ops
from stepgraph.verification.single import add_operation as add_operation
