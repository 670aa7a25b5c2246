// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Out, Result, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {TaskState} from "../src/libraries/Constants.sol";
import {Hashing} from "../src/libraries/Hashing.sol";
import {Fixture} from "./Fixture.sol";

/// @dev Of an encoding, what stands behind its leading offset.
function _body(bytes memory encoded) pure returns (bytes memory body) {
    body = new bytes(encoded.length - 32);
    for (uint256 i; i < body.length; ++i) {
        body[i] = encoded[i + 32];
    }
}

/// @notice Calldata that says two things: Solidity's offsets may be negative, so a structure could begin near 2^256, where copying
/// gives zeros while its fields are read from calldata's beginning.
contract AliasingTest is Fixture {
    /// @dev Bytes after the selector and the three heads at which the false price's words lie.
    uint256 private constant SHIFT = 10;
    uint256 private constant TO = 4 + 96 + 64 + 32;
    uint256 private constant BPS = TO + 96;
    uint256 private constant SIGNATURES = BPS + 96;

    Agreement private a;
    bytes[] private signatures;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        // What the copy would give.
        (a.price.fee, a.price.failedFee) = (0, 0);
        signatures = _signatures(a);
        id = registry.agreementIdOf(a);
    }

    function test_anAgreementIsActivatedWithThePriceThatWasSigned() public {
        // The same pieces in the same order, the price where it belongs.
        _expect(_call(_positive()), true);
        assertEq(registry.agreement(id).fee, 0);
    }

    function test_aPriceThatBeginsBeforeCalldataIsRefused() public {
        _expect(_call(_negative()), false);
        assertEq(uint8(registry.status(id)), uint8(IAgreementRegistry.Status.None));
    }

    function _expect(bytes memory data, bool succeeds) private {
        // Its refusal has no name: no honest encoder writes this.
        (bool called, bytes memory answer) = address(registry).call(data);
        assertEq(called, succeeds);
        if (succeeds) assertEq(abi.decode(answer, (bytes32)), id);
        else assertEq(answer.length, 0);
    }

    function _positive() private view returns (bytes memory) {
        return _body(abi.encode(a));
    }

    /// @dev The price's offset from the agreement's start points to SHIFT bytes into the heads, less a word: its second word, the
    /// fee, is there.
    function _negative() private view returns (bytes memory agreement) {
        agreement = _positive();
        uint256 start = _agreementAt();
        unchecked {
            uint256 relative = 4 + SHIFT - 0x20 - start;
            assembly ("memory-safe") {
                mstore(add(agreement, add(0x20, mul(20, 0x20))), relative)
            }
        }
    }

    function _call(bytes memory agreement) private view returns (bytes memory) {
        bytes memory signed = _body(abi.encode(signatures));
        unchecked {
            uint256 price = 4 + SHIFT - 0x20;
            return bytes.concat(
                abi.encodePacked(
                    IAgreementRegistry.activate.selector,
                    _agreementAt() - 4,
                    SIGNATURES - 4,
                    SIGNATURES + signed.length - 4,
                    new bytes(SHIFT),
                    TO - price,
                    BPS - price,
                    new bytes(32 - SHIFT)
                ),
                abi.encode(uint256(2), a.price.to[0], a.price.to[1]),
                abi.encode(uint256(2), a.price.bps[0], a.price.bps[1]),
                signed,
                _body(abi.encode(_noAuditors())),
                agreement
            );
        }
    }

    function _agreementAt() private view returns (uint256) {
        return SIGNATURES + _body(abi.encode(signatures)).length + _body(abi.encode(_noAuditors())).length;
    }
}

contract Requests {
    function digest(TaskRequest[] calldata list) external pure returns (bytes32) {
        return Hashing.hash(list[0]);
    }
}

/// @notice Every other structure that is hashed where it stands and found by an offset: begun before calldata, it is refused. A batch is
/// not here: it is an argument of its own, and Solidity refuses such an offset of one.
/// @dev Beyond calldata all reads give zero: a structure far enough before it has zeros and empty lists, and nothing but its start is
/// wrong with it. Bytes and strings are the exception, which Solidity refuses there by itself.
contract AliasingOfSettlementsTest is Fixture {
    uint256 private constant WORD = 0x20;
    uint256 private constant ARGUMENTS = 4;
    /// @dev More than the head of any of the structures.
    uint256 private constant FAR = 1024;

    Agreement private a;
    TaskRequest private r;
    IComputeOracle.Fulfilment private fulfilment;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        bytes32 id = _activate(a);
        _register();
        r = _taskRequest(id);
        _request(r);
        fulfilment = _fulfilment(r, _result(r));
    }

    function test_theyAreSettledAsTheyAreEncoded() public {
        uint256 before = vm.snapshotState();
        _expectSettled(_fulfil());
        vm.revertToState(before);
        _expectSettled(_fulfilMany());
    }

    function testFuzz_agreedEnclavesThatBeginBeforeCalldataAreRefused(uint256 start) public {
        a.salt = keccak256("another");
        bytes memory data = abi.encodeCall(registry.activate, (a, _signatures(a), _noAuditors()));
        // Behind the function's ten words.
        _begin(data, _follow(data, ARGUMENTS, 0), 13, _before(start));
        _expectRefused(address(registry), data);
    }

    function testFuzz_settledEnclavesThatBeginBeforeCalldataAreRefused(uint256 start) public {
        bytes memory data = _fulfil();
        uint256 settlement = _follow(data, ARGUMENTS, 0);
        _begin(data, settlement, 1, _before(start));
        _expectRefused(address(oracle), data);
    }

    /// @dev Of one alone, its task is asked for first: there is none of that id.
    function testFuzz_aResultThatBeginsBeforeCalldataIsRefused(uint256 start) public {
        bytes memory data = _fulfilMany();
        uint256 list = _follow(data, ARGUMENTS, 8) + WORD;
        _begin(data, _follow(data, list, 0), 0, _before(start));
        _expectRefused(address(oracle), data);
    }

    /// @dev Its name is looked for at its start, so Solidity refuses all but the last 32 places by itself.
    function testFuzz_aResultHasNoDigestWhereAnOutputBeginsBeforeCalldata(uint256 start) public {
        Result memory result = _result(r);
        // What a copy of it would give.
        result.outputs[0] = Out({name: "", kind: 0, recipientsDigest: 0, length: 0, digest: 0});
        bytes memory data = abi.encodeCall(oracle.resultDigestOf, (result));
        (, bytes memory digest) = address(oracle).call(data);
        assertEq(abi.decode(digest, (bytes32)), oracle.resultDigestOf(result));
        start = bound(start, type(uint256).max - (WORD - 1), type(uint256).max);
        _begin(data, _follow(data, _follow(data, ARGUMENTS, 0), 3) + WORD, 0, start);
        _expectRefused(address(oracle), data);
    }

    /// @dev In a fulfilment, other arguments lie where such a request's parameters would be looked for. Here they are found: their
    /// offset is the first word behind the selector, and counted from before calldata it leads to zeros in front of the list.
    function test_aRequestThatBeginsBeforeCalldataHasNoDigest() public {
        Requests requests = new Requests();
        TaskRequest memory zero;
        uint256 offset = 512;
        uint256 list = ARGUMENTS + offset;
        bytes memory data = bytes.concat(
            abi.encodePacked(Requests.digest.selector, offset, new bytes(offset - WORD)),
            abi.encode(uint256(1), WORD),
            _body(abi.encode(zero))
        );
        (bool called, bytes memory digest) = address(requests).call(data);
        assertTrue(called);
        assertEq(abi.decode(digest, (bytes32)), hashing.taskRequest(zero));
        uint256 start;
        unchecked {
            // Its seventh word is at the arguments.
            start = ARGUMENTS - 6 * WORD;
        }
        _begin(data, list + WORD, 0, start);
        _expectRefused(address(requests), data);
    }

    function _fulfil() private view returns (bytes memory) {
        return abi.encodeCall(oracle.fulfil, (_settlement(a), _identity(), fulfilment));
    }

    function _fulfilMany() private view returns (bytes memory) {
        IComputeOracle.Fulfilment[] memory all = new IComputeOracle.Fulfilment[](1);
        all[0] = fulfilment;
        return abi.encodeCall(oracle.fulfilMany, (_settlement(a), _identity(), all));
    }

    function _expectSettled(bytes memory data) private {
        (bool called,) = address(oracle).call(data);
        assertTrue(called);
        assertEq(_state(r), TaskState.FULFILLED);
    }

    /// @dev Without a name, as what the contracts find wrong themselves has one.
    function _expectRefused(address target, bytes memory data) private {
        (bool called, bytes memory answer) = target.call(data);
        assertFalse(called);
        assertEq(answer.length, 0);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    /// @return Where the structure or list begins whose offset is that word of the head at `base`.
    function _follow(bytes memory data, uint256 base, uint256 word) private pure returns (uint256) {
        uint256 offset;
        assembly ("memory-safe") {
            offset := mload(add(add(data, 0x20), add(base, mul(word, 0x20))))
        }
        return base + offset;
    }

    /// @return One to FAR bytes before calldata.
    function _before(uint256 start) private pure returns (uint256) {
        return bound(start, type(uint256).max - (FAR - 1), type(uint256).max);
    }

    /// @dev Has that offset lead to `start`.
    function _begin(bytes memory data, uint256 base, uint256 word, uint256 start) private pure {
        assembly ("memory-safe") {
            mstore(add(add(data, 0x20), add(base, mul(word, 0x20))), sub(start, base))
        }
    }
}
