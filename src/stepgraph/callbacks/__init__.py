"""Callbacks (``keras.callbacks``): what happens besides training while `fit` runs.

Example:
    >>> from stepgraph.callbacks import EarlyStopping
    >>> watch = EarlyStopping("val_loss", patience=3, restore_best_weights=True)
"""

from stepgraph.callbacks.base import Callback as Callback
from stepgraph.callbacks.base import CallbackList as CallbackList
from stepgraph.callbacks.base import History as History
from stepgraph.callbacks.control import EarlyStopping as EarlyStopping
from stepgraph.callbacks.control import LambdaCallback as LambdaCallback
from stepgraph.callbacks.control import LearningRateScheduler as LearningRateScheduler
from stepgraph.callbacks.control import ModelCheckpoint as ModelCheckpoint
from stepgraph.callbacks.control import ReduceLROnPlateau as ReduceLROnPlateau
from stepgraph.callbacks.control import TerminateOnNaN as TerminateOnNaN
from stepgraph.callbacks.progress import CSVLogger as CSVLogger
from stepgraph.callbacks.progress import ProgressLogger as ProgressLogger
