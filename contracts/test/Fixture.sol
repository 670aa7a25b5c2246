// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AgreementRegistry} from "../src/AgreementRegistry.sol";
import {ComputeOracle} from "../src/ComputeOracle.sol";
import {DatasetStreams} from "../src/DatasetStreams.sol";
import {FunctionAudits} from "../src/FunctionAudits.sol";
import {EnclaveRegistry} from "../src/EnclaveRegistry.sol";
import {
    Access,
    Agreement,
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
    TaskRequest
} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {IEnclaveRegistry} from "../src/interfaces/IEnclaveRegistry.sol";
import {IEvidenceVerifier} from "../src/interfaces/IEvidenceVerifier.sol";
import {ANYONE, DatasetPolicy, Outcome, TaskState, TcbStatus, TeeKind} from "../src/libraries/Constants.sol";
import {HashingHarness} from "./utils/HashingHarness.sol";
import {Deploy} from "./utils/Deploy.sol";
import {Told} from "./utils/Told.sol";

/// @title One valid case of everything: two hospitals, a function author, an attested enclave, a request and its result
/// @notice A negative test takes a valid case from here and changes exactly one field.
abstract contract Fixture is Deploy {
    AgreementRegistry internal registry;
    DatasetStreams internal streams;
    FunctionAudits internal audits;
    EnclaveRegistry internal enclaves;
    Told internal verifier;
    ComputeOracle internal oracle;
    HashingHarness internal hashing;

    address internal author;
    uint256 internal authorKey;
    address internal hospitalA;
    uint256 internal hospitalAKey;
    address internal hospitalB;
    uint256 internal hospitalBKey;
    address internal operator;
    uint256 internal operatorKey;
    address internal enclave;
    uint256 internal enclaveKey;
    address internal requester;
    address internal stranger;
    address internal payee;

    uint256 internal constant FEE = 0.01 ether;
    uint256 internal constant FAILED_FEE = 0.001 ether;
    uint32 internal constant RELEASE_DELAY = 5;
    bytes32 internal constant ANCHOR = keccak256("anchor");
    bytes32 internal constant MEASUREMENT = keccak256("measurement");
    bytes32 internal constant PLATFORM = keccak256("platform");
    bytes32 internal constant SEALING_KEY = keccak256("sealing key");
    bytes32 internal constant DATASET_A = keccak256("dataset A");
    bytes32 internal constant DATASET_B = keccak256("dataset B");

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        vm.roll(1000);
        vm.setBlockhash(999, keccak256("block 999"));

        (author, authorKey) = makeAddrAndKey("author");
        (hospitalA, hospitalAKey) = makeAddrAndKey("hospital A");
        (hospitalB, hospitalBKey) = makeAddrAndKey("hospital B");
        (operator, operatorKey) = makeAddrAndKey("operator");
        (enclave, enclaveKey) = makeAddrAndKey("enclave");
        requester = makeAddr("requester");
        stranger = makeAddr("stranger");
        payee = makeAddr("payee");

        streams = DatasetStreams(deploy("DatasetStreams.sol:DatasetStreams", ""));
        audits = FunctionAudits(deploy("FunctionAudits.sol:FunctionAudits", ""));
        registry = _deployRegistry();
        verifier = Told(deploy("Told.sol:Told", ""));
        IEvidenceVerifier[] memory verifiers = new IEvidenceVerifier[](1);
        verifiers[0] = verifier;
        enclaves = _deployEnclaves(verifiers);
        oracle = _deployOracle(registry);
        hashing = HashingHarness(deploy("HashingHarness.sol:HashingHarness", ""));
        vm.deal(requester, 100 ether);
    }

    function _deployRegistry() internal returns (AgreementRegistry) {
        return AgreementRegistry(deploy("AgreementRegistry.sol:AgreementRegistry", abi.encode(streams, audits)));
    }

    function _deployEnclaves(IEvidenceVerifier[] memory verifiers) internal returns (EnclaveRegistry) {
        return EnclaveRegistry(deploy("EnclaveRegistry.sol:EnclaveRegistry", abi.encode(verifiers)));
    }

    function _deployOracle(IAgreementRegistry agreements) internal returns (ComputeOracle) {
        return ComputeOracle(deploy("ComputeOracle.sol:ComputeOracle", abi.encode(agreements)));
    }

    // Agreements

    function _agreement() internal view returns (Agreement memory a) {
        a.oracle = address(oracle);
        a.enclaveRegistry = address(enclaves);
        a.fn = _function();
        a.data = new Dataset[](2);
        a.data[0] = _dataset("tumours", hospitalA, DATASET_A);
        a.data[1] = _dataset("diagnoses", hospitalB, DATASET_B);
        a.tee = _enclaves();
        a.keys = _keyRelease();
        a.paramDomain = keccak256("parameter domain");
        a.outputs = new Output[](1);
        a.outputs[0] = _output("table");
        a.access = Access({requesters: ANYONE, quota: 10, quotaPerRequester: 10});
        a.price = _price();
        a.notBefore = uint64(vm.getBlockTimestamp());
        a.notAfter = uint64(vm.getBlockTimestamp() + 365 days);
        a.activateBefore = uint64(vm.getBlockTimestamp() + 1 days);
        a.salt = keccak256("salt");
    }

    function _function() private view returns (Function memory f) {
        f.id = keccak256("function");
        f.owner = author;
        f.kind = 1;
        f.deterministic = true;
        f.limits = Limits({memoryMiB: 512, timeSeconds: 60, outputBytes: 1 << 20, outputRows: 10_000});
    }

    function _dataset(string memory name, address owner, bytes32 id) internal pure returns (Dataset memory d) {
        d.name = name;
        d.owner = owner;
        d.idOrStream = id;
        d.lineage = keccak256(abi.encode("lineage", id));
        d.sharesDigest = keccak256(abi.encode("shares", id));
        d.policy = 1;
        d.columns = new string[](2);
        d.columns[0] = "patient";
        d.columns[1] = "radius";
    }

    function _enclaves() private view returns (Enclaves memory e) {
        e.measurements = _one(MEASUREMENT);
        e.anchors = _one(ANCHOR);
        e.statusMask = uint32(1) << TcbStatus.UP_TO_DATE;
        e.evalFloor = 17;
        e.maxEvidenceAge = 1 days;
        e.operators = new address[](1);
        e.operators[0] = operator;
    }

    function _keyRelease() private pure returns (KeyRelease memory k) {
        k.brokers = new Broker[](3);
        for (uint256 i; i < 3; ++i) {
            k.brokers[i] = Broker({hpkeKey: keccak256(abi.encode("broker", i)), signer: address(uint160(0xb0 + i))});
        }
        k.threshold = 2;
        k.maxReleases = 3;
        k.confirmation = 1;
        k.confirmBlocks = 1;
        k.releaseDelay = RELEASE_DELAY;
    }

    function _output(string memory name) internal view returns (Output memory o) {
        o.name = name;
        o.kind = 1;
        o.recipients = new bytes32[](1);
        o.owners = new address[](2);
        o.owners[0] = hospitalA;
        o.owners[1] = hospitalB;
        o.sizeClass = 1;
    }

    function _price() private view returns (Price memory p) {
        p.fee = FEE;
        p.failedFee = FAILED_FEE;
        p.to = new address[](2);
        p.to[0] = hospitalA;
        p.to[1] = hospitalB;
        p.bps = new uint16[](2);
        p.bps[0] = 3000;
        p.bps[1] = 2500;
    }

    /// @dev By the three parties, in their order.
    function _signatures(Agreement memory a) internal view returns (bytes[] memory signatures) {
        bytes32 agreementId = registry.agreementIdOf(a);
        signatures = new bytes[](3);
        signatures[0] = sign(authorKey, agreementId);
        signatures[1] = sign(hospitalAKey, agreementId);
        signatures[2] = sign(hospitalBKey, agreementId);
    }

    function _activate(Agreement memory a) internal returns (bytes32 agreementId) {
        return registry.activate(a, _signatures(a), _noAuditors());
    }

    function _noAuditors() internal pure returns (IAgreementRegistry.Auditors memory auditors) {}

    /// @dev What a request under it shows of it.
    function _admission(Agreement memory a) internal pure returns (IAgreementRegistry.Admission memory admission) {
        admission.requesters = a.access.requesters;
        IAgreementRegistry.DataTerm[] memory terms = new IAgreementRegistry.DataTerm[](a.data.length);
        bool plain = true;
        for (uint256 i; i < a.data.length; ++i) {
            Dataset memory d = a.data[i];
            terms[i] = IAgreementRegistry.DataTerm(d.owner, d.idOrStream, d.lineage, d.policy, d.minVersion, d.budget);
            if (d.policy != DatasetPolicy.FIXED || d.budget != 0) plain = false;
        }
        if (!plain) admission.data = terms;
    }

    function _settlement(Agreement memory a) internal pure returns (IComputeOracle.Settlement memory) {
        return IComputeOracle.Settlement(a.enclaveRegistry, a.tee, a.price);
    }

    function _pricing(Agreement memory a) internal view returns (IComputeOracle.Pricing memory) {
        return IComputeOracle.Pricing(a.enclaveRegistry, hashing.enclaves(a.tee), a.price);
    }

    // Enclaves

    function _claims(bytes32 blockHash) internal view returns (IEvidenceVerifier.Claims memory c) {
        c.anchor = ANCHOR;
        c.tee = TeeKind.SGX;
        c.measurement = MEASUREMENT;
        c.reportData = enclaves.reportDataOf(enclave, SEALING_KEY, blockHash);
        c.platform = PLATFORM;
        c.svnDigest = keccak256("svn");
        c.judgement = _judgement(TcbStatus.UP_TO_DATE, 17);
    }

    function _judgement(uint8 status, uint32 evaluation) internal view returns (IEvidenceVerifier.Judgement memory j) {
        j.tcbStatus = status;
        j.evaluation = evaluation;
        j.validUntil = uint40(vm.getBlockTimestamp() + 30 days);
    }

    /// @dev Whom `_registration` registers.
    function _identity() internal view returns (IEnclaveRegistry.Identity memory) {
        return IEnclaveRegistry.Identity({
            measurement: MEASUREMENT,
            platform: PLATFORM,
            sealingKey: SEALING_KEY,
            svnDigest: keccak256("svn"),
            verifier: 0,
            operator: operator,
            tee: TeeKind.SGX
        });
    }

    function _standing() internal view returns (IEnclaveRegistry.Standing memory standing) {
        (, standing) = enclaves.record(ANCHOR, enclave);
    }

    /// @dev Evidence over the last block, signed by everyone who has to.
    function _registration() internal view returns (IEnclaveRegistry.Registration memory r) {
        r.signer = enclave;
        r.sealingKey = SEALING_KEY;
        r.blockNumber = vm.getBlockNumber() - 1;
        r.blockHash = blockhash(r.blockNumber);
        r.operator = operator;
        r.operatorSignature = sign(operatorKey, enclaves.hostDigest(enclave));
        r.verifier = address(verifier);
        r.evidence = abi.encode(_claims(r.blockHash));
        _prove(r);
    }

    /// @dev Signs the registration anew with the enclave's key, as `r` stands now.
    function _prove(IEnclaveRegistry.Registration memory r) internal view {
        r.proofOfPossession = sign(enclaveKey, _enrolmentDigest(r));
    }

    function _enrolmentDigest(IEnclaveRegistry.Registration memory r) internal view returns (bytes32) {
        return enclaves.enrolmentDigest(
            Enrolment({signer: r.signer, sealingKey: r.sealingKey, blockHash: r.blockHash, operator: r.operator})
        );
    }

    function _register() internal returns (bytes32 anchor) {
        return enclaves.register(_registration());
    }

    /// @dev A block later, whose hash `blockhash` knows.
    function _nextBlock() internal {
        uint256 number = vm.getBlockNumber();
        vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(abi.encode("block", number)));
        skip(12);
    }

    // Tasks

    function _taskRequest(bytes32 agreementId) internal view returns (TaskRequest memory r) {
        r.agreementId = agreementId;
        r.requester = requester;
        r.nonce = keccak256("nonce");
        r.versions = new bytes32[](2);
        r.versions[0] = DATASET_A;
        r.versions[1] = DATASET_B;
        r.resultKey = keccak256("result key");
        r.maxFee = FEE;
        r.asOf = uint64(vm.getBlockTimestamp());
        r.deadline = uint64(vm.getBlockTimestamp() + 1 hours);
    }

    function _request(TaskRequest memory r) internal returns (bytes32 taskId) {
        vm.prank(r.requester);
        return oracle.request{value: FEE}(r, _anyone(), "");
    }

    /// @dev The admission to an agreement with fixed datasets that anyone may ask under.
    function _anyone() internal pure returns (IAgreementRegistry.Admission memory admission) {
        admission.requesters = ANYONE;
    }

    function _result(TaskRequest memory r) internal view returns (Result memory result) {
        result.agreementId = r.agreementId;
        result.taskId = oracle.taskIdOf(r);
        result.outcome = Outcome.SUCCEEDED;
        result.outputs = new Out[](1);
        result.outputs[0] = Out({
            name: "table", kind: 1, recipientsDigest: keccak256("recipients"), length: 4096, digest: keccak256("output")
        });
        result.payee = payee;
        result.anchor = ANCHOR;
    }

    function _failure(TaskRequest memory r) internal view returns (Result memory result) {
        result = _result(r);
        result.outcome = Outcome.FAILED;
        result.outputs = new Out[](0);
    }

    function _sign(Result memory result) internal view returns (bytes memory) {
        return sign(enclaveKey, oracle.resultDigestOf(result));
    }

    function _fulfil(Agreement memory a, TaskRequest memory r, Result memory result) internal {
        oracle.fulfil(_settlement(a), _identity(), _fulfilment(r, result));
    }

    /// @dev Signed, and with its request where that is needed.
    function _fulfilment(TaskRequest memory r, Result memory result)
        internal
        view
        returns (IComputeOracle.Fulfilment memory f)
    {
        f.result = result;
        f.signature = _sign(result);
        if (result.outcome == Outcome.SUCCEEDED && r.callback == address(0)) return f;
        f.request = new TaskRequest[](1);
        f.request[0] = r;
    }

    function _state(TaskRequest memory r) internal view returns (uint8) {
        return oracle.task(r.agreementId, oracle.taskIdOf(r)).state;
    }

    // Lists

    function _one(bytes32 value) internal pure returns (bytes32[] memory list) {
        list = new bytes32[](1);
        list[0] = value;
    }
}
