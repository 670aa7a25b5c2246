// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {AgreementRegistry} from "../src/AgreementRegistry.sol";
import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {ConsentKind} from "../src/libraries/Constants.sol";
import {Signatures} from "../src/libraries/Signatures.sol";
import {Fixture} from "./Fixture.sol";
import {Test} from "./utils/Test.sol";
import {Wallet} from "./utils/Wallet.sol";

contract SignaturesHarness {
    function kindOf(address account, bytes32 digest, bytes calldata signature) external view returns (uint8) {
        return Signatures.kindOf(account, digest, signature);
    }
}

/// @notice Answers isValidSignature with bytes of the test's choice, or reverts with them.
contract Answering {
    bytes private _answer;
    bool private _reverts;

    constructor(bytes memory answer, bool reverts) {
        (_answer, _reverts) = (answer, reverts);
    }

    fallback() external {
        bytes memory answer = _answer;
        bool reverts = _reverts;
        assembly ("memory-safe") {
            if reverts { revert(add(answer, 0x20), mload(answer)) }
            return(add(answer, 0x20), mload(answer))
        }
    }
}

/// @notice Would write, if it could, before it says yes.
contract Writing {
    uint256 public asked;

    function isValidSignature(bytes32, bytes memory) external returns (bytes4) {
        ++asked;
        return IERC1271.isValidSignature.selector;
    }
}

/// kindOf
/// ├── the zero address, which is what a signature that is none recovers to: NONE
/// ├── 65 bytes r, s, v by the account's key: ECDSA
/// │   └── of high s, of v other than 27 and 28, of another length: NONE
/// ├── code that answers with the magic value: ERC1271
/// │   └── with anything else, too little, a revert, or a write: NONE
/// └── an account without code that answers with the magic value: NONE
contract SignaturesTest is Test {
    uint256 private constant N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    SignaturesHarness private harness = new SignaturesHarness();

    function test_zeroAddressNeverSigned() public view {
        assertEq(harness.kindOf(address(0), keccak256("any"), new bytes(65)), ConsentKind.NONE);
    }

    /// The precompile at 4 answers with what it is asked: selector and digest, which here begin like the magic value.
    function test_onlyDeployedCodeConsentsByERC1271() public view {
        assertEq(address(4).code.length, 0);
        assertEq(harness.kindOf(address(4), bytes32(uint256(7)), new bytes(65)), ConsentKind.NONE);
    }

    function testFuzz_takesTheAccountsOwnSignatureOnly(uint256 key, uint256 other, bytes32 digest, bytes32 another)
        public
        view
    {
        key = bound(key, 1, N - 1);
        other = bound(other, 1, N - 1);
        vm.assume(key != other && digest != another);
        bytes memory signature = sign(key, digest);
        assertEq(harness.kindOf(vm.addr(key), digest, signature), ConsentKind.ECDSA);
        assertEq(harness.kindOf(vm.addr(other), digest, signature), ConsentKind.NONE);
        assertEq(harness.kindOf(vm.addr(key), another, signature), ConsentKind.NONE);
    }

    /// Each signature has one form: nobody makes another of it (malleability).
    function testFuzz_refusesEveryOtherFormOfASignature(uint256 key, bytes32 digest) public view {
        key = bound(key, 1, N - 1);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        address account = vm.addr(key);
        bytes32 high = bytes32(N - uint256(s));
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, high, v ^ 7)), ConsentKind.NONE, "high s");
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, s, v - 27)), ConsentKind.NONE, "v 0 or 1");
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, s, v + 8)), ConsentKind.NONE, "v 35 or 36");
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, s, v ^ 7)), ConsentKind.NONE, "the other v");
        bytes32 vs = bytes32(uint256(s) | uint256(v - 27) << 255);
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, vs)), ConsentKind.NONE, "compact");
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, s)), ConsentKind.NONE, "short");
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, s, v, v)), ConsentKind.NONE, "long");
        assertEq(harness.kindOf(account, digest, ""), ConsentKind.NONE, "empty");
        assertEq(harness.kindOf(account, digest, abi.encodePacked(r, s, v)), ConsentKind.ECDSA);
    }

    function test_codeAnswersWithTheMagicValue() public {
        bytes memory magic = abi.encode(IERC1271.isValidSignature.selector);
        assertEq(_kindOf(magic, false), ConsentKind.ERC1271);
        assertEq(_kindOf(abi.encode(bytes4(0xffffffff)), false), ConsentKind.NONE);
        assertEq(_kindOf(abi.encode(true), false), ConsentKind.NONE);
        // The four bytes alone, and with more after them than a bytes4 has.
        assertEq(_kindOf(abi.encodePacked(IERC1271.isValidSignature.selector), false), ConsentKind.NONE);
        assertEq(_kindOf(abi.encodePacked(IERC1271.isValidSignature.selector, ~bytes28(0)), false), ConsentKind.NONE);
        assertEq(_kindOf("", false), ConsentKind.NONE);
        assertEq(_kindOf(magic, true), ConsentKind.NONE);
    }

    /// It is asked by a static call, so it can neither write nor come back in.
    function test_codeThatWritesDoesNotConsent() public {
        Writing writing = new Writing();
        assertEq(harness.kindOf(address(writing), keccak256("any"), ""), ConsentKind.NONE);
        assertEq(writing.asked(), 0);
    }

    function _kindOf(bytes memory answer, bool reverts) private returns (uint8) {
        return harness.kindOf(address(new Answering(answer, reverts)), keccak256("any"), "any");
    }
}

/// @notice A consent counts for one digest: one agreement, in one registry, on one chain (R7).
contract ReplayTest is Fixture {
    Agreement private a;

    function setUp() public override {
        super.setUp();
        a = _agreement();
    }

    function test_replayOnAnotherChain() public {
        bytes[] memory signatures = _signatures(a);
        vm.chainId(1);
        _refuses(a, signatures, author);
    }

    /// Also one that was brought ahead.
    function test_replayAheadOnAnotherChain() public {
        bytes memory signature = sign(hospitalAKey, registry.agreementIdOf(a));
        vm.chainId(1);
        _refusesAhead(registry.agreementIdOf(a), signature);
    }

    function test_replayInAnotherRegistry() public {
        bytes[] memory signatures = _signatures(a);
        AgreementRegistry another = _deployRegistry();
        bytes32 id = another.agreementIdOf(a);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, author, id));
        another.activate(a, signatures, _noAuditors());
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, hospitalA, id));
        another.sign(id, hospitalA, signatures[1]);
    }

    function test_replayForTheSameTermsAgain() public {
        bytes[] memory signatures = _signatures(a);
        registry.activate(a, signatures, _noAuditors());
        a.salt = keccak256("another salt");
        _refuses(a, signatures, author);
        _refusesAhead(registry.agreementIdOf(a), signatures[1]);
    }

    /// Whatever is changed, nobody signed it.
    function testFuzz_replayForOtherTerms(uint8 what) public {
        bytes[] memory signatures = _signatures(a);
        what = what % 24;
        if (what == 0) a.fn.id = keccak256("another function");
        else if (what == 1) a.fn.limits.outputRows += 1;
        else if (what == 2) a.data[1].columns[0] = "name";
        else if (what == 3) a.data[0].idOrStream = keccak256("another dataset");
        else if (what == 4) a.data[0].sharesDigest = keccak256("other shares");
        else if (what == 5) a.tee.measurements[0] = keccak256("another measurement");
        else if (what == 6) a.tee.anchors[0] = keccak256("another anchor");
        else if (what == 7) a.tee.statusMask |= 4;
        else if (what == 8) a.tee.operators[0] = stranger;
        else if (what == 9) a.keys.brokers[0].hpkeKey = keccak256("another broker");
        else if (what == 10) a.keys.threshold = 1;
        else if (what == 11) a.keys.releaseDelay = 0;
        else if (what == 12) a.paramDomain = keccak256("another domain");
        else if (what == 13) a.outputs[0].recipients[0] = keccak256("another recipient");
        else if (what == 14) a.outputs[0].owners[0] = stranger;
        else if (what == 15) a.access.quota += 1;
        else if (what == 16) a.access.requesters = keccak256("other requesters");
        else if (what == 17) a.price.to[0] = stranger;
        else if (what == 18) a.price.fee += 1;
        else if (what == 19) a.notAfter += 1;
        else if (what == 20) a.activateBefore += 1;
        else if (what == 21) a.oracle = address(verifier);
        else if (what == 22) a.enclaveRegistry = address(verifier);
        else a.data[0].lineage = keccak256("another lineage");
        _refuses(a, signatures, author);
    }

    /// Digests are taken of calldata as it comes, so a word with bits beyond its type must not pass for the one that was signed.
    function testFuzz_aFlippedBitIsRefusedOrMeansTheSame(uint256 bit) public {
        bytes32 id = registry.agreementIdOf(a);
        bytes memory data = abi.encodeCall(I.activate, (a, _signatures(a), _noAuditors()));
        bit = bound(bit, 0, data.length * 8 - 1);
        data[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        (bool success, bytes memory answer) = address(registry).call(data);
        I.Record memory record = registry.agreement(id);
        assertEq(uint8(record.status), uint8(success ? I.Status.Active : I.Status.None));
        if (!success) return;
        // Padding that nobody reads.
        assertEq(answer, abi.encode(id));
        assertEq(record.fee, a.price.fee);
        assertEq(record.settlementHash, hashing.settlementHash(a.enclaveRegistry, hashing.enclaves(a.tee), a.price));
    }

    /// The same of the words that no signature covers by their type alone: bits above a field of the enclaves or the price.
    function test_refusesBitsBeyondTheType() public {
        bytes memory data = abi.encodeCall(I.activate, (a, _signatures(a), _noAuditors()));
        _refusesDirty(data, a.tee.evalFloor);
        _refusesDirty(data, uint160(a.tee.operators[0]));
        _refusesDirty(data, a.price.bps[1]);
    }

    /// Of the agreement's struct alone, without chain and registry; and as a wallet signs text.
    function test_refusesSignaturesOutsideTheDomain() public {
        bytes[] memory signatures = _signatures(a);
        signatures[1] = sign(hospitalAKey, hashing.agreement(a));
        _refuses(a, signatures, hospitalA);
        signatures[1] = sign(hospitalAKey, MessageHashUtils.toEthSignedMessageHash(registry.agreementIdOf(a)));
        _refuses(a, signatures, hospitalA);
    }

    /// What a party signed as a requester consents to nothing.
    function test_refusesASignatureOverATask() public {
        bytes32 id = registry.agreementIdOf(a);
        TaskRequest memory r = _taskRequest(id);
        r.requester = hospitalA;
        _refusesAhead(id, sign(hospitalAKey, oracle.taskIdOf(r)));
    }

    /// Another account with the same key's owner behind it is another party.
    function test_replayForTheWalletOfTheSigner() public {
        bytes[] memory signatures = _signatures(a);
        a.data[0].owner = address(new Wallet(hospitalA));
        _refuses(a, signatures, author);
        signatures = _signatures(a);
        a.data[0].owner = hospitalA;
        _refuses(a, signatures, author);
    }

    // Forms, through the registry

    function test_refusesHighS() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(hospitalAKey, registry.agreementIdOf(a));
        bytes32 n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        _refusesForm(abi.encodePacked(r, uint256(n) - uint256(s), v ^ 7));
    }

    function test_refusesCompactSignatures() public {
        (bytes32 r, bytes32 vs) = vm.signCompact(hospitalAKey, registry.agreementIdOf(a));
        _refusesForm(abi.encodePacked(r, vs));
    }

    function test_refusesVOfZeroAndOne() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(hospitalAKey, registry.agreementIdOf(a));
        _refusesForm(abi.encodePacked(r, s, v - 27));
    }

    /// @dev Sets the top bit of each word with this value.
    function _refusesDirty(bytes memory clean, uint256 value) private {
        uint256 found;
        for (uint256 i = 4; i < clean.length; i += 32) {
            bytes memory data = bytes.concat(clean);
            uint256 word;
            assembly ("memory-safe") {
                word := mload(add(add(data, 0x20), i))
            }
            if (word != value) continue;
            ++found;
            data[i] = 0x80;
            (bool success,) = address(registry).call(data);
            assertFalse(success);
        }
        assertNotEq(found, 0);
    }

    function _refusesForm(bytes memory signature) private {
        bytes[] memory signatures = _signatures(a);
        signatures[1] = signature;
        _refuses(a, signatures, hospitalA);
        _refusesAhead(registry.agreementIdOf(a), signature);
    }

    function _refuses(Agreement memory b, bytes[] memory signatures, address party) private {
        bytes32 id = registry.agreementIdOf(b);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, party, id));
        registry.activate(b, signatures, _noAuditors());
    }

    function _refusesAhead(bytes32 id, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, hospitalA, id));
        registry.sign(id, hospitalA, signature);
    }
}
