// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Access, Agreement, Broker, Dataset, Enclaves, Function, KeyRelease, Output, Price} from "./Types.sol";
import {IAgreementRegistry} from "./interfaces/IAgreementRegistry.sol";
import {IFunctionAudits} from "./interfaces/IFunctionAudits.sol";
import {BPS, Confirmation, DatasetPolicy, FunctionKind, OutputKind, TcbStatus} from "./libraries/Constants.sol";

/// @title What an agreement must look like to become active
/// @notice An empty policy refuses (R21), and so does each field whose behaviour this version does not have.
/// @dev Stateless, and a contract of its own because the registry's code would pass EIP-170's limit with it. The registry's
/// constructor makes it, so nobody chooses it. Its errors are the registry's.
contract AgreementTerms {
    uint256 private constant MAX_DATASETS = 16;
    uint256 private constant MAX_COLUMNS = 1024;
    uint256 private constant MAX_BROKERS = 16;
    uint256 private constant MAX_OUTPUTS = 16;
    uint256 private constant MAX_RECIPIENTS = 64;
    uint256 private constant MAX_SHARES = 16;
    uint256 private constant MAX_AUDITORS = 16;
    /// @dev `fulfil` searches these lists, so their length is a cost of every task.
    uint256 private constant MAX_POLICY_LIST = 64;

    /// @notice Reverts with the first thing that is wrong.
    function check(Agreement calldata a) external view {
        _contract("oracle", a.oracle);
        _contract("enclaveRegistry", a.enclaveRegistry);
        _times(a);
        _function(a.fn);
        _data(a.data);
        _enclaves(a.tee);
        _keys(a.keys);
        _outputs(a.outputs);
        _access(a.access);
        _price(a.price);
        _nonZero("paramDomain", a.paramDomain);
        _nonZero("salt", a.salt);
        _finality(a);
    }

    /// @notice Reverts unless as many auditors approved the function as were agreed.
    function checkAuditors(
        bytes32 functionId,
        bytes32 agreed,
        IAgreementRegistry.Auditors calldata auditors,
        IFunctionAudits audits
    ) external view {
        uint256 count = auditors.accounts.length;
        bytes32 got = count == 0 ? bytes32(0) : keccak256(abi.encode(auditors.accounts, auditors.threshold));
        if (got != agreed) revert IAgreementRegistry.AgreementRegistry_WrongAuditors(got, agreed);
        if (count == 0) return;
        _count("auditors", count, 1, MAX_AUDITORS);
        _range("auditors.threshold", auditors.threshold, 1, count);
        uint256 approvals;
        bytes32[] memory accounts = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            address account = auditors.accounts[i];
            accounts[i] = bytes32(uint256(uint160(account)));
            if (audits.reportOf(functionId, account) != 0) ++approvals;
        }
        // One listed twice would count twice.
        _distinct("auditors", accounts);
        if (approvals < auditors.threshold) {
            revert IAgreementRegistry.AgreementRegistry_NotAudited(functionId, approvals, auditors.threshold);
        }
    }

    /// @dev R9: what cannot be taken back waits until the chain cannot take the request back. R16: a function that may answer
    /// otherwise when run again would answer twice for one price.
    function _finality(Agreement calldata a) private pure {
        bool budget;
        bool open;
        for (uint256 i; i < a.data.length; ++i) {
            if (a.data[i].budget != 0) budget = true;
        }
        for (uint256 i; i < a.outputs.length; ++i) {
            if (a.outputs[i].recipients.length == 0) open = true;
        }
        _goes("keys.confirmation", !(budget || open) || a.keys.confirmation == Confirmation.FINALIZED);
        _goes("fn.deterministic", !budget || a.fn.deterministic);
    }

    function _times(Agreement calldata a) private view {
        if (a.activateBefore < block.timestamp) {
            revert IAgreementRegistry.AgreementRegistry_ActivationClosed(a.activateBefore, block.timestamp);
        }
        if (a.notBefore >= a.notAfter || a.notAfter <= block.timestamp || a.notAfter > type(uint40).max) {
            revert IAgreementRegistry.AgreementRegistry_BadWindow(a.notBefore, a.notAfter, block.timestamp);
        }
    }

    function _function(Function calldata f) private pure {
        _nonZero("fn.id", f.id);
        _nonZero("fn.owner", f.owner);
        _range("fn.kind", f.kind, FunctionKind.SQL, FunctionKind.WASM);
        // R17b: a sealed function is the id of its ciphertext and its shares, or neither.
        _goes("fn.sharesDigest", (f.sealedId == 0) == (f.sharesDigest == 0));
        _range("fn.limits.memoryMiB", f.limits.memoryMiB, 1, type(uint32).max);
        _range("fn.limits.timeSeconds", f.limits.timeSeconds, 1, type(uint32).max);
        _range("fn.limits.outputBytes", f.limits.outputBytes, 1, type(uint64).max);
        _range("fn.limits.outputRows", f.limits.outputRows, 1, type(uint64).max);
    }

    function _data(Dataset[] calldata data) private pure {
        _count("data", data.length, 1, MAX_DATASETS);
        bytes32[] memory names = new bytes32[](data.length);
        for (uint256 i; i < data.length; ++i) {
            Dataset calldata d = data[i];
            names[i] = _name("data.name", d.name);
            _nonZero("data.owner", d.owner);
            _nonZero("data.idOrStream", d.idOrStream);
            _nonZero("data.lineage", d.lineage);
            _range("data.policy", d.policy, DatasetPolicy.FIXED, DatasetPolicy.LATEST);
            // R7b, R10: each version of a stream has shares of its own.
            bool stream = d.policy != DatasetPolicy.FIXED;
            _goes("data.sharesDigest", stream == (d.sharesDigest == 0));
            if (!stream) _range("data.minVersion", d.minVersion, 0, 0);
            else if (d.policy != DatasetPolicy.LATEST) _range("data.minVersion", d.minVersion, 1, type(uint64).max);
            _count("data.columns", d.columns.length, 1, MAX_COLUMNS);
            for (uint256 j; j < d.columns.length; ++j) {
                _name("data.columns", d.columns[j]);
            }
        }
        _distinct("data.name", names);
    }

    function _enclaves(Enclaves calldata e) private pure {
        _count("tee.measurements", e.measurements.length, 1, MAX_POLICY_LIST);
        _nonZero("tee.measurements", e.measurements);
        _count("tee.anchors", e.anchors.length, 1, MAX_POLICY_LIST);
        _nonZero("tee.anchors", e.anchors);
        if (e.statusMask == 0 || e.statusMask & ~TcbStatus.ACCEPTABLE_MASK != 0) {
            revert IAgreementRegistry.AgreementRegistry_BadStatusMask(e.statusMask, TcbStatus.ACCEPTABLE_MASK);
        }
        _range("tee.evalFloor", e.evalFloor, 1, type(uint32).max);
        _range("tee.maxEvidenceAge", e.maxEvidenceAge, 1, type(uint64).max);

        // R5: anyHost is written out, never implied by empty lists.
        uint256 hosts = e.operators.length + e.platforms.length;
        if (e.anyHost != (hosts == 0)) {
            revert IAgreementRegistry.AgreementRegistry_BadHosts(e.anyHost, e.operators.length, e.platforms.length);
        }
        // Zero is what an identity without an operator or platform has: listing it would let any host in.
        _count("tee.operators", e.operators.length, 0, MAX_POLICY_LIST);
        for (uint256 i; i < e.operators.length; ++i) {
            _nonZero("tee.operators", e.operators[i]);
        }
        _count("tee.platforms", e.platforms.length, 0, MAX_POLICY_LIST);
        _nonZero("tee.platforms", e.platforms);
    }

    function _keys(KeyRelease calldata k) private pure {
        _count("keys.brokers", k.brokers.length, 1, MAX_BROKERS);
        bytes32[] memory hpkeKeys = new bytes32[](k.brokers.length);
        bytes32[] memory signers = new bytes32[](k.brokers.length);
        for (uint256 i; i < k.brokers.length; ++i) {
            Broker calldata b = k.brokers[i];
            _nonZero("keys.brokers.hpkeKey", b.hpkeKey);
            _nonZero("keys.brokers.signer", b.signer);
            hpkeKeys[i] = b.hpkeKey;
            signers[i] = bytes32(uint256(uint160(b.signer)));
        }
        // One party listed twice would count twice towards the threshold.
        _distinct("keys.brokers.hpkeKey", hpkeKeys);
        _distinct("keys.brokers.signer", signers);
        _range("keys.threshold", k.threshold, 1, k.brokers.length);
        _range("keys.maxReleases", k.maxReleases, 1, type(uint8).max);
        _range("keys.confirmation", k.confirmation, Confirmation.LATEST, Confirmation.FINALIZED);
        if (k.confirmation != Confirmation.LATEST) _range("keys.confirmBlocks", k.confirmBlocks, 0, 0);
    }

    function _outputs(Output[] calldata outputs) private pure {
        _count("outputs", outputs.length, 1, MAX_OUTPUTS);
        bytes32[] memory names = new bytes32[](outputs.length);
        for (uint256 i; i < outputs.length; ++i) {
            Output calldata o = outputs[i];
            names[i] = _name("outputs.name", o.name);
            _range("outputs.kind", o.kind, OutputKind.ARROW_TABLE, OutputKind.ABI_VALUES);
            _count("outputs.recipients", o.recipients.length, 0, MAX_RECIPIENTS);
            // What a contract reads is public; nobody decodes a sealed one on chain, nor a table.
            bool open = o.recipients.length == 0;
            _goes("outputs.kind", (o.kind == OutputKind.ABI_VALUES) == open);
            _goes("outputs.sizeClass", !open || o.sizeClass == 1);
            _count("outputs.owners", o.owners.length, 1, MAX_DATASETS + 1);
            for (uint256 j; j < o.owners.length; ++j) {
                _nonZero("outputs.owners", o.owners[j]);
            }
            _range("outputs.sizeClass", o.sizeClass, 1, type(uint32).max);
        }
        _distinct("outputs.name", names);
    }

    function _access(Access calldata a) private pure {
        _nonZero("access.requesters", a.requesters);
        _range("access.quota", a.quota, 1, type(uint64).max);
        _range("access.quotaPerRequester", a.quotaPerRequester, 1, a.quota);
    }

    function _price(Price calldata p) private view {
        if (p.token != address(0)) _contract("price.token", p.token);
        _range("price.fee", p.fee, 0, type(uint128).max);
        _range("price.minFee", p.minFee, 0, p.fee);
        _range("price.failedFee", p.failedFee, 0, p.fee);
        _count("price.to", p.to.length, 0, MAX_SHARES);
        _count("price.bps", p.bps.length, p.to.length, p.to.length);
        uint256 bps = 0;
        for (uint256 i; i < p.to.length; ++i) {
            _nonZero("price.to", p.to[i]);
            bps += p.bps[i];
        }
        if (bps > BPS) revert IAgreementRegistry.AgreementRegistry_SharesExceedFee(bps);
        // It goes to those shares.
        _goes("price.minFee", p.minFee == 0 || bps != 0);
    }

    function _goes(bytes32 field, bool together) private pure {
        if (!together) revert IAgreementRegistry.AgreementRegistry_Conflict(_text(field));
    }

    function _contract(bytes32 field, address value) private view {
        if (value.code.length == 0) revert IAgreementRegistry.AgreementRegistry_NotAContract(_text(field), value);
    }

    function _nonZero(bytes32 field, address value) private pure {
        if (value == address(0)) revert IAgreementRegistry.AgreementRegistry_Zero(_text(field));
    }

    function _nonZero(bytes32 field, bytes32 value) private pure {
        if (value == 0) revert IAgreementRegistry.AgreementRegistry_Zero(_text(field));
    }

    function _nonZero(bytes32 field, bytes32[] calldata values) private pure {
        for (uint256 i; i < values.length; ++i) {
            _nonZero(field, values[i]);
        }
    }

    function _count(bytes32 field, uint256 got, uint256 min, uint256 max) private pure {
        if (got < min || got > max) revert IAgreementRegistry.AgreementRegistry_BadCount(_text(field), got, min, max);
    }

    function _range(bytes32 field, uint256 got, uint256 min, uint256 max) private pure {
        if (got < min || got > max) {
            revert IAgreementRegistry.AgreementRegistry_OutOfRange(_text(field), got, min, max);
        }
    }

    function _name(bytes32 field, string calldata name) private pure returns (bytes32) {
        if (bytes(name).length == 0) revert IAgreementRegistry.AgreementRegistry_Zero(_text(field));
        return keccak256(bytes(name));
    }

    function _distinct(bytes32 field, bytes32[] memory values) private pure {
        for (uint256 i = 1; i < values.length; ++i) {
            for (uint256 j; j < i; ++j) {
                if (values[i] == values[j]) revert IAgreementRegistry.AgreementRegistry_Duplicate(_text(field), i);
            }
        }
    }

    /// @dev Field names travel as one word: only a revert pays for a string.
    function _text(bytes32 field) private pure returns (string memory text) {
        uint256 length;
        while (length < 32 && field[length] != 0) ++length;
        text = new string(length);
        assembly ("memory-safe") {
            mstore(add(text, 0x20), field)
        }
    }
}
