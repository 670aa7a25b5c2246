// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../src/Types.sol";
import {IAgreementRegistry} from "../src/interfaces/IAgreementRegistry.sol";
import {Fixture} from "./Fixture.sol";

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

    /// @dev Without the leading offset.
    function _body(bytes memory encoded) private pure returns (bytes memory body) {
        body = new bytes(encoded.length - 32);
        for (uint256 i; i < body.length; ++i) {
            body[i] = encoded[i + 32];
        }
    }
}
