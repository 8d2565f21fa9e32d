"""The schedules under the name that Keras gives them; they live in `stepgraph.schedules`."""

from stepgraph.schedules import CosineDecay as CosineDecay
from stepgraph.schedules import CosineDecayRestarts as CosineDecayRestarts
from stepgraph.schedules import ExponentialDecay as ExponentialDecay
from stepgraph.schedules import InverseTimeDecay as InverseTimeDecay
from stepgraph.schedules import LearningRateSchedule as LearningRateSchedule
from stepgraph.schedules import PiecewiseConstantDecay as PiecewiseConstantDecay
from stepgraph.schedules import PolynomialDecay as PolynomialDecay
from stepgraph.schedules import deserialize as deserialize
from stepgraph.schedules import serialize as serialize
