// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {
    Access,
    Agreement,
    Audit,
    Batch,
    Broker,
    Dataset,
    Enclaves,
    Enrolment,
    Function,
    KeyRelease,
    Limits,
    Out,
    Output,
    Price,
    Result,
    TaskRequest,
    VerifierStatement
} from "../../src/Types.sol";
import {Hashing} from "../../src/libraries/Hashing.sol";

/// @notice The library's functions from outside: most take calldata.
contract HashingHarness {
    function limits(Limits calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function fn(Function calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function dataset(Dataset calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function enclaves(Enclaves calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function broker(Broker calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function keyRelease(KeyRelease calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function output(Output calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function access(Access calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function price(Price calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function agreement(Agreement calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function taskRequest(TaskRequest calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function out(Out calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function result(Result calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function verifierStatement(VerifierStatement calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function enrolment(Enrolment calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function host(address signer) external pure returns (bytes32) {
        return Hashing.hashHost(signer);
    }

    function retire(address signer) external pure returns (bytes32) {
        return Hashing.hashRetire(signer);
    }

    function settlementHash(address enclaveRegistry, bytes32 tee, Price calldata p) external pure returns (bytes32) {
        return Hashing.settlementHash(enclaveRegistry, tee, p);
    }

    function batch(Batch calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }

    function audit(Audit calldata s) external pure returns (bytes32) {
        return Hashing.hash(s);
    }
}
