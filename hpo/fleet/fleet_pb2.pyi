from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GO_ON: _ClassVar[Verdict]
    STOP: _ClassVar[Verdict]
    LOST: _ClassVar[Verdict]
GO_ON: Verdict
STOP: Verdict
LOST: Verdict

class Grant(_message.Message):
    __slots__ = ("trial_id", "attempt", "fence", "seed", "epochs", "has_checkpoint")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    HAS_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    attempt: int
    fence: int
    seed: int
    epochs: int
    has_checkpoint: bool
    def __init__(self, trial_id: _Optional[str] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ..., seed: _Optional[int] = ..., epochs: _Optional[int] = ..., has_checkpoint: _Optional[bool] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("host", "pid", "device", "study_digest")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    host: str
    pid: int
    device: str
    study_digest: str
    def __init__(self, host: _Optional[str] = ..., pid: _Optional[int] = ..., device: _Optional[str] = ..., study_digest: _Optional[str] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("lease_s", "study", "split_seed", "epochs", "train_examples", "checkpoint_epochs", "checkpoint_s", "checkpoint_last", "settings", "trial_timeout_s")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SEED_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_S_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_LAST_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    TRIAL_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    lease_s: float
    study: str
    split_seed: int
    epochs: int
    train_examples: int
    checkpoint_epochs: int
    checkpoint_s: float
    checkpoint_last: bool
    settings: _containers.ScalarMap[str, str]
    trial_timeout_s: float
    def __init__(self, lease_s: _Optional[float] = ..., study: _Optional[str] = ..., split_seed: _Optional[int] = ..., epochs: _Optional[int] = ..., train_examples: _Optional[int] = ..., checkpoint_epochs: _Optional[int] = ..., checkpoint_s: _Optional[float] = ..., checkpoint_last: _Optional[bool] = ..., settings: _Optional[_Mapping[str, str]] = ..., trial_timeout_s: _Optional[float] = ...) -> None: ...

class BeatRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerdictReply(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("trial_id", "failure", "error")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    failure: str
    error: str
    def __init__(self, trial_id: _Optional[str] = ..., failure: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class OfferRequest(_message.Message):
    __slots__ = ("trial_id", "value")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    value: float
    def __init__(self, trial_id: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("wanted",)
    WANTED_FIELD_NUMBER: _ClassVar[int]
    wanted: bool
    def __init__(self, wanted: _Optional[bool] = ...) -> None: ...

class WeightsChunk(_message.Message):
    __slots__ = ("trial_id", "data", "sha256", "epoch")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    data: bytes
    sha256: str
    epoch: int
    def __init__(self, trial_id: _Optional[str] = ..., data: _Optional[bytes] = ..., sha256: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("trial_id",)
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    def __init__(self, trial_id: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("trial_id", "epoch")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    epoch: int
    def __init__(self, trial_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ("trial_id", "text")
    TRIAL_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    trial_id: str
    text: bytes
    def __init__(self, trial_id: _Optional[str] = ..., text: _Optional[bytes] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("immediate", "suspend")
    IMMEDIATE_FIELD_NUMBER: _ClassVar[int]
    SUSPEND_FIELD_NUMBER: _ClassVar[int]
    immediate: bool
    suspend: bool
    def __init__(self, immediate: _Optional[bool] = ..., suspend: _Optional[bool] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: int
    def __init__(self, workers: _Optional[int] = ...) -> None: ...

class ScaleReply(_message.Message):
    __slots__ = ("room",)
    ROOM_FIELD_NUMBER: _ClassVar[int]
    room: int
    def __init__(self, room: _Optional[int] = ...) -> None: ...
