"""Centralized training: state, step, loop, checkpoints and run folders."""

from lepton_jax.training.evaluate import evaluate, evaluate_run, predict
from lepton_jax.training.loop import fit
from lepton_jax.training.losses import make_loss
from lepton_jax.training.optimizers import make_optimizer, make_schedule
from lepton_jax.training.runs import Progress, Result, SavedRun, finish, load_run
from lepton_jax.training.step import TrainState, init_state, make_step
from lepton_jax.training.tensorboard import tensorboard
from lepton_jax.training.train import train

__all__ = [
    "Progress",
    "Result",
    "SavedRun",
    "TrainState",
    "evaluate",
    "evaluate_run",
    "finish",
    "fit",
    "init_state",
    "load_run",
    "make_loss",
    "make_optimizer",
    "make_schedule",
    "make_step",
    "predict",
    "tensorboard",
    "train",
]
