"""The options of every command, each declared once; see ``declare``."""

from __future__ import annotations

from blip2cli.options.calibrate import CalibrateOptions, CalibrationOptions
from blip2cli.options.columns import ColumnOptions
from blip2cli.options.convert import (
    CheckpointOptions,
    ConversionOptions,
    ConvertOptions,
    ImagesMode,
    MetadataKind,
    RowKind,
    SchemaOptions,
    SidecarSuffix,
    VerifyOptions,
)
from blip2cli.options.declare import Declared, OptionGroup, declarations
from blip2cli.options.evaluate import EvalOptions, MetricsOptions
from blip2cli.options.images import LoaderOptions
from blip2cli.options.model import (
    DEFAULT_MODEL,
    PLACING,
    DeviceMap,
    DoctorOptions,
    Dtype,
    ModelOptions,
    Quantize,
)
from blip2cli.options.rank import RankBy, RankOptions
from blip2cli.options.ray import RayOptions
from blip2cli.options.report import PageOptions, RunPageOptions
from blip2cli.options.reporting import DoctorOutputOptions, ReportOptions, VerbosityOptions
from blip2cli.options.run import (
    ConfigOptions,
    ErrorsMode,
    LimitOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.options.text import AskOptions, CaptionOptions, DecodeOptions, Norm
from blip2cli.options.vectors import EmbeddingDtype, EmbedOptions, Kind, Pool

# Every group of options there is.
GROUPS: tuple[type[OptionGroup], ...] = (
    ConfigOptions,
    SourceOptions,
    ModelOptions,
    LoaderOptions,
    OutputOptions,
    LimitOptions,
    RayOptions,
    DecodeOptions,
    CaptionOptions,
    RankOptions,
    AskOptions,
    EmbedOptions,
    ConvertOptions,
    CheckpointOptions,
    VerifyOptions,
    SchemaOptions,
    EvalOptions,
    MetricsOptions,
    PageOptions,
    RunPageOptions,
    CalibrateOptions,
    CalibrationOptions,
    DoctorOptions,
    DoctorOutputOptions,
    ReportOptions,
)

__all__ = [
    "DEFAULT_MODEL",
    "GROUPS",
    "PLACING",
    "AskOptions",
    "CalibrateOptions",
    "CalibrationOptions",
    "CaptionOptions",
    "CheckpointOptions",
    "ColumnOptions",
    "ConfigOptions",
    "ConversionOptions",
    "ConvertOptions",
    "Declared",
    "DecodeOptions",
    "DeviceMap",
    "DoctorOptions",
    "DoctorOutputOptions",
    "Dtype",
    "EmbedOptions",
    "EmbeddingDtype",
    "ErrorsMode",
    "EvalOptions",
    "ImagesMode",
    "Kind",
    "LimitOptions",
    "LoaderOptions",
    "MetadataKind",
    "MetricsOptions",
    "ModelOptions",
    "Norm",
    "OptionGroup",
    "OutputOptions",
    "PageOptions",
    "Pool",
    "Quantize",
    "RankBy",
    "RankOptions",
    "RayOptions",
    "ReportOptions",
    "RowKind",
    "RunOptions",
    "RunPageOptions",
    "SchemaOptions",
    "SidecarSuffix",
    "SourceOptions",
    "VerbosityOptions",
    "VerifyOptions",
    "declarations",
]
