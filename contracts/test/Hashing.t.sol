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
} from "../src/Types.sol";
import {ANYONE, ATTESTED_ANCHOR_TAG, EVIDENCE_TAG} from "../src/libraries/Constants.sol";
import {Hashing} from "../src/libraries/Hashing.sol";
import {TaskSlot, TaskSlots} from "../src/libraries/TaskSlot.sol";
import {HashingHarness} from "./utils/HashingHarness.sol";
import {Deploy} from "./utils/Deploy.sol";

/// @notice Every struct hash against forge's own EIP-712 implementation, which is given nothing but the type as text.
contract HashingTest is Deploy {
    HashingHarness private hashing = HashingHarness(deploy("HashingHarness.sol:HashingHarness", ""));

    string private constant LIMITS = "Limits(uint32 memoryMiB,uint32 timeSeconds,uint64 outputBytes,uint64 outputRows)";
    string private constant FUNCTION =
        "Function(bytes32 id,bytes32 sealedId,bytes32 sharesDigest,address owner,uint8 kind,bool deterministic,Limits limits)";
    string private constant DATASET =
        "Dataset(string name,address owner,bytes32 idOrStream,bytes32 lineage,bytes32 sharesDigest,uint8 policy,uint64 minVersion,string[] columns,uint256 budget)";
    string private constant ENCLAVES =
        "Enclaves(bytes32[] measurements,bytes32[] anchors,uint32 statusMask,uint32 evalFloor,uint32 graceDays,uint64 maxEvidenceAge,bool anyHost,address[] operators,bytes32[] platforms)";
    string private constant BROKER = "Broker(bytes32 hpkeKey,address signer)";
    string private constant KEY_RELEASE =
        "KeyRelease(Broker[] brokers,uint8 threshold,uint8 maxReleases,uint8 confirmation,uint32 confirmBlocks,uint32 releaseDelay)";
    string private constant OUTPUT =
        "Output(string name,uint8 kind,bytes32[] recipients,address[] owners,uint32 sizeClass)";
    string private constant ACCESS = "Access(bytes32 requesters,uint64 quota,uint64 quotaPerRequester)";
    string private constant PRICE =
        "Price(address token,uint256 fee,uint256 minFee,uint256 failedFee,address[] to,uint16[] bps)";
    string private constant AGREEMENT =
        "Agreement(address oracle,address enclaveRegistry,Function fn,Dataset[] data,Enclaves tee,KeyRelease keys,bytes32 paramDomain,Output[] outputs,Access access,Price price,uint64 notBefore,uint64 notAfter,uint64 activateBefore,bytes32 supersedes,bytes32 auditors,bytes32 salt)";
    string private constant TASK_REQUEST =
        "TaskRequest(bytes32 agreementId,address requester,bytes32 nonce,bytes32[] versions,bytes32 inputsId,bytes32 inputShares,bytes params,bytes32 resultKey,uint256 spend,uint256 maxFee,uint64 asOf,uint64 deadline,address callback,uint32 callbackGas)";
    string private constant OUT = "Out(string name,uint8 kind,bytes32 recipientsDigest,uint64 length,bytes32 digest)";
    string private constant RESULT =
        "Result(bytes32 agreementId,bytes32 taskId,uint8 outcome,Out[] outputs,address payee,bytes32 anchor)";
    string private constant VERIFIER_STATEMENT =
        "VerifierStatement(uint8 tee,bytes32 measurement,bytes32 reportData,bytes32 root,uint8 tcbStatus,uint32 evaluation,bytes32 platform,bytes32 svnDigest,bytes32 collateral,uint64 appraisedAt,uint64 validUntil)";
    string private constant ENROLMENT =
        "Enrolment(address signer,bytes32 sealingKey,bytes32 blockHash,address operator)";

    string private constant BATCH =
        "Batch(bytes32 agreementId,address payee,bytes32 anchor,bytes32[] tasks,bytes32[] results)";
    string private constant AUDIT = "Audit(bytes32 functionId,bytes32 report)";

    function test_typeHashesAreThoseOfTheTypes() public pure {
        assertEq(Hashing.LIMITS_TYPEHASH, vm.eip712HashType(LIMITS), "Limits");
        assertEq(Hashing.FUNCTION_TYPEHASH, vm.eip712HashType(_function()), "Function");
        assertEq(Hashing.DATASET_TYPEHASH, vm.eip712HashType(DATASET), "Dataset");
        assertEq(Hashing.ENCLAVES_TYPEHASH, vm.eip712HashType(ENCLAVES), "Enclaves");
        assertEq(Hashing.BROKER_TYPEHASH, vm.eip712HashType(BROKER), "Broker");
        assertEq(Hashing.KEY_RELEASE_TYPEHASH, vm.eip712HashType(_keyRelease()), "KeyRelease");
        assertEq(Hashing.OUTPUT_TYPEHASH, vm.eip712HashType(OUTPUT), "Output");
        assertEq(Hashing.ACCESS_TYPEHASH, vm.eip712HashType(ACCESS), "Access");
        assertEq(Hashing.PRICE_TYPEHASH, vm.eip712HashType(PRICE), "Price");
        assertEq(Hashing.AGREEMENT_TYPEHASH, vm.eip712HashType(_agreement()), "Agreement");
        assertEq(Hashing.TASK_REQUEST_TYPEHASH, vm.eip712HashType(TASK_REQUEST), "TaskRequest");
        assertEq(Hashing.OUT_TYPEHASH, vm.eip712HashType(OUT), "Out");
        assertEq(Hashing.RESULT_TYPEHASH, vm.eip712HashType(_result()), "Result");
        assertEq(Hashing.BATCH_TYPEHASH, vm.eip712HashType(BATCH), "Batch");
        assertEq(Hashing.AUDIT_TYPEHASH, vm.eip712HashType(AUDIT), "Audit");
        assertEq(Hashing.VERIFIER_STATEMENT_TYPEHASH, vm.eip712HashType(VERIFIER_STATEMENT), "VerifierStatement");
        assertEq(Hashing.ENROLMENT_TYPEHASH, vm.eip712HashType(ENROLMENT), "Enrolment");
        assertEq(Hashing.HOST_TYPEHASH, vm.eip712HashType("Host(address signer)"), "Host");
        assertEq(Hashing.RETIRE_TYPEHASH, vm.eip712HashType("Retire(address signer)"), "Retire");
    }

    function testFuzz_limits(Limits memory s) public view {
        assertEq(hashing.limits(s), vm.eip712HashStruct(LIMITS, abi.encode(s)));
    }

    /// forge-config: default.fuzz.runs = 128
    function testFuzz_function(Function memory s) public view {
        assertEq(hashing.fn(s), vm.eip712HashStruct(_function(), abi.encode(s)));
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_dataset(Dataset memory s) public view {
        assertEq(hashing.dataset(s), vm.eip712HashStruct(DATASET, abi.encode(s)));
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_enclaves(Enclaves memory s) public view {
        assertEq(hashing.enclaves(s), vm.eip712HashStruct(ENCLAVES, abi.encode(s)));
    }

    function testFuzz_broker(Broker memory s) public view {
        assertEq(hashing.broker(s), vm.eip712HashStruct(BROKER, abi.encode(s)));
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_keyRelease(KeyRelease memory s) public view {
        assertEq(hashing.keyRelease(s), vm.eip712HashStruct(_keyRelease(), abi.encode(s)));
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_output(Output memory s) public view {
        assertEq(hashing.output(s), vm.eip712HashStruct(OUTPUT, abi.encode(s)));
    }

    function testFuzz_access(Access memory s) public view {
        assertEq(hashing.access(s), vm.eip712HashStruct(ACCESS, abi.encode(s)));
    }

    function testFuzz_price(Price memory s) public view {
        assertEq(hashing.price(s), vm.eip712HashStruct(PRICE, abi.encode(s)));
    }

    /// @dev Arrays of structs of arrays grow large: a few runs are as many values as elsewhere hundreds.
    /// forge-config: default.fuzz.runs = 4
    function testFuzz_agreement(Agreement memory s) public view {
        assertEq(hashing.agreement(s), vm.eip712HashStruct(_agreement(), abi.encode(s)));
    }

    function testFuzz_taskRequest(TaskRequest memory s) public view {
        assertEq(hashing.taskRequest(s), vm.eip712HashStruct(TASK_REQUEST, abi.encode(s)));
    }

    function testFuzz_out(Out memory s) public view {
        assertEq(hashing.out(s), vm.eip712HashStruct(OUT, abi.encode(s)));
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_result(Result memory s) public view {
        assertEq(hashing.result(s), vm.eip712HashStruct(_result(), abi.encode(s)));
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_batch(Batch memory s) public view {
        assertEq(hashing.batch(s), vm.eip712HashStruct(BATCH, abi.encode(s)));
    }

    function testFuzz_audit(Audit memory s) public view {
        assertEq(hashing.audit(s), vm.eip712HashStruct(AUDIT, abi.encode(s)));
    }

    function testFuzz_settlementHash(address enclaveRegistry, bytes32 teeHash, Price memory p) public view {
        bytes32 price = vm.eip712HashStruct(PRICE, abi.encode(p));
        assertEq(
            hashing.settlementHash(enclaveRegistry, teeHash, p), keccak256(abi.encode(enclaveRegistry, teeHash, price))
        );
    }

    /// @dev Hashed as it stands: it is not the digest of the value that it would be cut to.
    function test_aWordWithBitsBeyondItsTypeIsAnother() public view {
        TaskRequest memory r;
        r.deadline = 7;
        bytes memory data = abi.encodeCall(hashing.taskRequest, (r));
        bytes32 deadline = _digest(data);
        assertEq(deadline, hashing.taskRequest(r));
        // The head's twelfth word; what bears it begins with selector and offset.
        data[4 + 32 + 11 * 32] = 0x01;
        assertTrue(_digest(data) != deadline);
    }

    function _digest(bytes memory data) private view returns (bytes32) {
        (bool ok, bytes memory answer) = address(hashing).staticcall(data);
        assertTrue(ok);
        return abi.decode(answer, (bytes32));
    }

    function testFuzz_verifierStatement(VerifierStatement memory s) public view {
        assertEq(hashing.verifierStatement(s), vm.eip712HashStruct(VERIFIER_STATEMENT, abi.encode(s)));
    }

    function testFuzz_enrolment(Enrolment memory s) public view {
        assertEq(hashing.enrolment(s), vm.eip712HashStruct(ENROLMENT, abi.encode(s)));
    }

    function testFuzz_hostAndRetire(address signer) public view {
        assertEq(hashing.host(signer), vm.eip712HashStruct("Host(address signer)", abi.encode(signer)));
        assertEq(hashing.retire(signer), vm.eip712HashStruct("Retire(address signer)", abi.encode(signer)));
    }

    function test_tagsAreTheDigestsOfTheirTexts() public pure {
        assertEq(EVIDENCE_TAG, sha256("enclave-oracle/evidence/1"));
        assertEq(ATTESTED_ANCHOR_TAG, sha256("enclave-oracle/attested-anchor/1"));
        assertEq(ANYONE, keccak256("enclave-oracle/anyone"));
    }

    function testFuzz_taskSlotKeepsItsFields(
        uint40 atBlock,
        uint40 deadline,
        uint40 cancelUntil,
        uint128 escrow,
        bool callback
    ) public pure {
        TaskSlot slot = TaskSlots.requested(atBlock, deadline, cancelUntil, escrow, callback);
        assertEq(slot.state(), 1);
        assertEq(slot.callback(), callback);
        assertEq(slot.requestBlock(), atBlock);
        assertEq(slot.deadline(), deadline);
        assertEq(slot.cancelUntil(), cancelUntil);
        assertEq(slot.escrow(), escrow);
    }

    function testFuzz_taskSlotKeepsTheResultsDigest(uint8 state, bytes32 digest) public pure {
        state &= 0x7f;
        TaskSlot slot = TaskSlots.settled(state, digest);
        assertEq(slot.state(), state);
        assertFalse(slot.callback());
        assertEq(bytes32(slot.resultDigest()), digest & ~bytes32(uint256(0xff)));
        TaskSlot failed = slot.withFailedCallback();
        assertTrue(failed.callback());
        assertEq(failed.state(), state);
        assertEq(bytes32(failed.resultDigest()), bytes32(slot.resultDigest()));
        assertEq(TaskSlot.unwrap(failed.withoutCallback()), TaskSlot.unwrap(slot));
        assertEq(TaskSlots.closed(state).state(), state);
        assertEq(bytes32(TaskSlots.closed(state).resultDigest()), bytes32(0));
    }

    function _function() private pure returns (string memory) {
        return string.concat(FUNCTION, LIMITS);
    }

    function _keyRelease() private pure returns (string memory) {
        return string.concat(KEY_RELEASE, BROKER);
    }

    function _result() private pure returns (string memory) {
        return string.concat(RESULT, OUT);
    }

    /// @dev EIP-712 orders the referenced types by name.
    function _agreement() private pure returns (string memory) {
        return string.concat(AGREEMENT, ACCESS, BROKER, DATASET, ENCLAVES, FUNCTION, KEY_RELEASE, LIMITS, OUTPUT, PRICE);
    }
}
