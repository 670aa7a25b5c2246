"""Rules that hold by what is not there, or by how things are built: each with the tests that show it."""

from __future__ import annotations

_SHAPE = "tests/unit/test_structure.py"
_BOOT = "tests/integration/test_enclave_boot.py"
_SANDBOX = "tests/integration/test_enclave_sandbox.py"

STRUCTURE: dict[str, tuple[str, ...]] = {
    "R1": (
        f"{_SHAPE}::test_the_enclave_opens_no_file_to_write_to",
        f"{_BOOT}::test_each_boot_is_a_new_identity",
        f"{_BOOT}::test_the_socket_is_the_owners_and_the_process_cannot_be_dumped",
        f"{_BOOT}::test_no_plaintext_is_left_in_any_file_log_or_error",
    ),
    "R3": (
        "tests/adversary/test_launch.py::test_a_variable_does_not_reach_the_function",
        "tests/adversary/test_launch.py::test_a_module_that_is_not_measured_is_not_loaded",
        "tests/adversary/test_launch.py::test_bytecode_is_not_loaded",
        f"{_BOOT}::test_another_configuration_is_another_measurement",
        "tests/unit/test_attesters_measure.py::test_every_third_party_import_of_the_enclave_is_measured",
        "tests/unit/test_attesters_measure.py::test_one_changed_byte_of_a_file_changes_the_digest",
    ),
    "R6": (
        f"{_SHAPE}::test_the_sandbox_is_forked_before_there_are_keys",
        f"{_SHAPE}::test_what_runs_in_the_sandbox_imports_nothing_that_holds_keys",
        f"{_SANDBOX}::test_code_cannot_reach_outside",
        f"{_SANDBOX}::test_a_system_call_that_is_not_listed_fails",
        f"{_SANDBOX}::test_nothing_passes_from_one_job_to_the_next",
        f"{_SANDBOX}::test_a_sandbox_that_cannot_start_is_refused",
    ),
    "R14": (f"{_SHAPE}::test_the_enclave_reads_no_clock",),
    "R16": (
        "tests/unit/test_enclave_sql.py::test_ordinary_queries_run_and_repeat_to_the_byte",
        "tests/unit/test_enclave_sql.py::test_no_volatile_function_of_this_duckdb_is_listed",
        "tests/unit/test_protocol_documents.py::test_another_plaintext_name_or_key_set_shares_no_key",
    ),
    "R17": ("tests/unit/test_protocol_documents.py::test_output_key_follows_from_the_documented_derivation",),
    "R20": (
        f"{_SHAPE}::test_money_leaves_the_oracle_in_one_place",
        "contracts/test/Callback.t.sol::test_settlesThoughTheCallbackReverts",
        "contracts/test/AttacksFromWithin.t.sol::test_nothingIsEnteredFromACallback",
    ),
    "R21": (
        f"{_SHAPE}::test_a_contract_of_the_core_has_no_owner_admin_pause_or_upgrade",
        f"{_SHAPE}::test_a_contract_of_the_core_runs_no_code_but_its_own",
        f"{_SHAPE}::test_the_core_has_no_other_contract",
    ),
}
"""Rule → test ids."""

NOT_BUILT: dict[str, str] = {
    "R17b": "Private functions are not built: brokers and enclaves refuse `fn.sealedId`; the digest covers the salt.",
}
"""Rule → why this version does not have it, or not all of it."""
