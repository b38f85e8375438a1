"""Test files that take longest: ``make test-fast`` leaves them out.

Chosen by their time in a run of all tests with ``--durations=0``.
"""

from __future__ import annotations

SLOW_FILES = frozenset(
    (
        "benchmarks/test_gpu_race.py",
        "cli/test_compile.py",
        "cli/test_doctor.py",
        "cli/test_process.py",
        "cli/test_remote.py",
        "convert/checkpoints/test_command.py",
        "convert/checkpoints/test_released.py",
        "convert/checkpoints/test_sources.py",
        "convert/formats/test_webdataset.py",
        "convert/test_command.py",
        "images/test_loader.py",
        "images/test_resize.py",
        "images/test_timeout.py",
        "model/checkpoint/test_hub.py",
        "model/decoding/test_cuda_graphs.py",
        "model/decoding/test_scheduler.py",
        "model/decoding/test_scoring.py",
        "model/layers/test_linear.py",
        "model/placement/test_single_thread.py",
        "model/test_batches.py",
        "model/test_published_sizes.py",
        "model/test_quantized.py",
        "model/test_t5_layouts.py",
        "model/vision/test_compiled.py",
        "pipeline/test_interruptions.py",
        "pipeline/test_out_of_memory.py",
        "pipeline/test_resume.py",
        "pipeline/test_run_start.py",
        "sinks/test_journal.py",
        "sources/readers/test_remote.py",
        "system/test_library_logging.py",
        "system/test_openmp.py",
        "test_bad_input.py",
        "test_readme.py",
        "tiny/test_generation.py",
        "tiny/test_itm_weights.py",
        "tiny/test_t5_generation.py",
        "tiny/test_t5_weights.py",
        "tiny/test_weights.py",
        "torture/test_faults.py",
        "torture/test_kills.py",
        "training/test_build.py",
        "training/test_itm.py",
        "training/test_t5.py",
        "training/test_trainer.py",
    )
)
