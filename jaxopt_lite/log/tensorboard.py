"""Event files of TensorBoard, by the package `tensorboard` alone: scalars, and what its HParams reads."""

from pathlib import Path
from typing import Any

__all__ = []


class EventFile:
    """A new event file in a directory.

    Args:
        directory: made where it is missing; TensorBoard shows it as one run.
    """

    def __init__(self, directory: Path):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(directory))

    def add(self, now: float, step: int, summary: Any = None, **others: Any) -> None:
        """Append an event.

        Args:
            now: in seconds since 1970.
            step: of the event.
            summary: from `scalar`, `scalars`, `ending` or TensorBoard's own functions.
            **others: other fields of an event.
        """
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        self._writer.add_event(Event(wall_time=now, step=step, summary=summary, **others))

    def restart(self, now: float, step: int) -> None:
        """Make TensorBoard leave out what earlier files of the directory have from this step on."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self.add(now, step, session_log=SessionLog(status=SessionLog.START))

    def flush(self) -> None:
        """Write what has been added."""
        self._writer.flush()

    def close(self) -> None:
        """Write what has been added, and close the file."""
        self._writer.close()


def scalars(values: dict[str, float]) -> Any:
    """A summary of several values, by their tags."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def scalar(tag: str, value: float | None = None, **others: Any) -> Any:
    """A summary of one value, or of other fields than a number."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    return Summary(value=[Summary.Value(tag=tag, simple_value=value, **others)])


def ending(status: str, now: float) -> Any:
    """The end of a session of HParams: STATUS_SUCCESS, STATUS_FAILURE or STATUS_RUNNING."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    api: Any = api_pb2
    plugin: Any = plugin_data_pb2
    ended = plugin.SessionEndInfo(status=api.Status.Value(status), end_time_secs=now)
    content = metadata.create_summary_metadata(plugin.HParamsPluginData(session_end_info=ended))
    return scalar(metadata.SESSION_END_INFO_TAG, metadata=content)
