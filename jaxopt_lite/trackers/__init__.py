"""Trackers, such as `jo.trackers.tensorboard("runs/board")`, for `fit(..., trackers=[...])`."""

from jaxopt_lite.trackers.console import console
from jaxopt_lite.trackers.csv import csv
from jaxopt_lite.trackers.mlflow import mlflow
from jaxopt_lite.trackers.tensorboard import tensorboard
from jaxopt_lite.trackers.wandb import wandb

__all__ = ["console", "csv", "mlflow", "tensorboard", "wandb"]
