"""The planted bugs of the backends: what is compiled, kept, converted and chosen; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]

CHOICE: Final = "engine/backends/choice.py"
COMPILED: Final = "engine/backends/compiled_cache.py"
CONVERSION: Final = "engine/backends/conversion.py"
CONVERT: Final = "engine/models/convert.py"
CORES: Final = "engine/backends/cores.py"
FALLBACK: Final = "server/worker/conversion.py"
FOLDER: Final = "engine/bounded_folder.py"
OPENVINO: Final = "engine/backends/openvino_backend.py"
PROCESS: Final = "engine/backends/conversion_process.py"
TIMES: Final = "server/executors/work_times.py"

OPENVINO_TESTS: Final = "tests/engine/test_openvino_backend.py::"
ANEW: Final = f"{OPENVINO_TESTS}test_another_model_or_another_machine_is_compiled_anew"
OPENVINO_COMPANY: Final = f"{OPENVINO_TESTS}test_a_row_has_the_same_bits_in_any_company_and_after_any_history"

MUTATIONS: Final = (
    Mutation(
        name="weights-of-another-model",
        file=OPENVINO,
        old='"weights": weights,',
        new='"weights": "",',
        test=ANEW,
        why="A model whose weights were replaced would go on drawing with the old ones.",
    ),
    Mutation(
        name="config-of-another-model",
        file=OPENVINO,
        old='"config": dict(network.config),',
        new='"config": {},',
        test=ANEW,
        why="Two models with the same weights and other layers would share a compiled network.",
    ),
    Mutation(
        name="bits-of-another-machine",
        file=OPENVINO,
        old='"properties": self._properties,',
        new='"properties": {},',
        test=ANEW,
        why="Another number of threads would be given the bits of this one.",
    ),
    Mutation(
        name="outputs-share-memory",
        file=OPENVINO,
        old="get_output_tensor().data.copy()",
        new="get_output_tensor().data",
        test=OPENVINO_COMPANY,
        why="The next call would overwrite a picture that is still being drawn.",
    ),
    Mutation(
        name="errors-swallowed",
        file=OPENVINO,
        old="self._request.start_async()\n        self._request.wait()",
        new="self._request.infer()",
        test=f"{OPENVINO_TESTS}test_a_call_that_fails_never_hands_out_the_result_of_another",
        why="A call that fails would hand out whatever lies in memory: another caller's picture.",
    ),
    Mutation(
        name="weights-changed-midway",
        file=OPENVINO,
        old="if self._digest_of(network) != weights:",
        new="if False:",
        test=f"{OPENVINO_TESTS}test_weights_that_change_while_they_are_read_are_refused_and_not_kept",
        why="The compiled network of new weights would be kept under the name of the old ones.",
    ),
    Mutation(
        name="fixed-sizes",
        file=CONVERSION,
        old="-1 if axis in varying else length",
        new="length",
        test=f"{OPENVINO_TESTS}test_a_unet_of_any_kind_predicts_at_every_size_what_torch_does",
        why="Every size but the example's would be refused at its first step.",
    ),
    Mutation(
        name="damage-believed",
        file=COMPILED,
        old="if _digest(origin, data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:",
        new="if False:",
        test=f"{OPENVINO_TESTS}test_a_damaged_or_foreign_file_is_logged_and_made_again",
        why="A damaged file would crash the engine at every start, or draw wrong pictures.",
    ),
    Mutation(
        name="digest-remembered-for-ever",
        file=COMPILED,
        old='if remembered["identity"] == identity:',
        new="if True:",
        test="tests/engine/test_compiled_cache.py::test_the_digest_of_weights_is_remembered_until_the_file_changes",
        why="Weights that were replaced would pass for the old ones.",
    ),
    Mutation(
        name="latest-deleted-first",
        file=FOLDER,
        old="in sorted(files):",
        new="in sorted(files, reverse=True):",
        test="tests/engine/test_compiled_cache.py::test_what_was_used_longest_ago_is_deleted_first_and_nothing_that_is_in_use",
        why="Two models would push each other out of the cache, and be converted at every start.",
    ),
    Mutation(
        name="openvino-on-a-gpu",
        file=CHOICE,
        old='if device.type != "cpu":',
        new='if device.type == "meta":',
        test="tests/engine/test_backend_choice.py::test_all_others_have_torch",
        why="A server with a GPU would draw on its CPU.",
    ),
    Mutation(
        name="container-limits-ignored",
        file=CORES,
        old="min(len(cores), _quota(root))",
        new="len(cores)",
        test="tests/engine/test_cores.py::test_the_tightest_of_the_groups_around_a_process_counts",
        why="In a container with the time of two cores, 64 threads would stop each other.",
    ),
    Mutation(
        name="crash-of-the-conversion-unnoticed",
        file=PROCESS,
        old="if code != 0:",
        new="if code is None:",
        test="tests/engine/test_conversion_process.py::test_a_crash_or_a_hang_is_told_and_leaves_no_process",
        why="The engine would run the compiler that has just crashed, in its own process.",
    ),
    Mutation(
        name="conversion-outlives-the-engine",
        file=CONVERT,
        old="os._exit(1)",
        new="pass",
        test="tests/engine/test_conversion_process.py::test_it_ends_when_the_engine_does",
        why="A compiler that hangs would stay for ever, with its memory, after each restart.",
    ),
    Mutation(
        name="wish-for-openvino-ignored",
        file=FALLBACK,
        old='if configuration.backend == "openvino":',
        new="if False:",
        test="tests/server/worker/test_conversion.py::test_where_openvino_alone_is_wanted_a_crash_is_an_error",
        why="BACKEND=openvino would draw by torch, with other bytes.",
    ),
    Mutation(
        name="times-of-another-backend",
        file=TIMES,
        old="self._backend = item.backend",
        new='self._backend = "openvino"',
        test="tests/server/executors/test_work_times.py::test_what_was_learned_of_one_backend_says_nothing_of_another",
        why="An engine that had to change to torch would be taken for one that hangs.",
    ),
    Mutation(
        name="copies-from-pageable-memory",
        file="engine/transfer.py",
        old='tensor.pin_memory() if device.type == "cuda" else tensor',
        new="tensor",
        test="tests/engine/test_on_a_rehearsed_gpu.py::test_nothing_waits_for_the_device_but_what_must",
        why="Every request that joins would make the host wait for the steps before it, and the GPU for the host.",
    ),
)
