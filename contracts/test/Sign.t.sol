// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {ConsentKind} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Wallet} from "./utils/Wallet.sol";

/// @notice sign: signatures brought one by one, by anyone, ahead of the activation (R7).
contract SignTest is Fixture {
    Agreement private a;
    bytes32 private id;
    bytes[] private signatures;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        id = registry.agreementIdOf(a);
        signatures = _signatures(a);
    }

    function test_anyoneBringsASignature() public {
        vm.expectEmit(address(registry));
        emit I.AgreementApproved(id, hospitalA, ConsentKind.ECDSA, signatures[1]);
        vm.prank(stranger);
        registry.sign(id, hospitalA, signatures[1]);
        assertEq(registry.approvalOf(id, hospitalA), ConsentKind.ECDSA);
        assertEq(registry.approvalOf(id, stranger), ConsentKind.NONE);
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.NONE);
    }

    function test_signedOneByOneThenActivatedByAnyone() public {
        _sign(hospitalB, signatures[2]);
        _sign(author, signatures[0]);
        _sign(hospitalA, signatures[1]);
        vm.expectEmit(address(registry));
        emit I.ConsentRecorded(id, hospitalA, ConsentKind.ECDSA);
        vm.expectEmit(address(registry));
        emit I.AgreementActivated(id, a, new bytes[](3));
        vm.prank(stranger);
        registry.activate(a, new bytes[](3), _noAuditors());
        assertEq(uint8(registry.status(id)), uint8(I.Status.Active));
    }

    /// One way each: brought ahead, own transaction ahead, with the activation.
    function testFuzz_consentsOfEveryKindMakeOneActivation(uint8[3] memory ways, address caller) public {
        address[] memory parties = registry.partiesOf(a);
        uint8[3] memory kinds;
        bytes[] memory shown = new bytes[](3);
        for (uint256 i; i < 3; ++i) {
            vm.assume(caller != parties[i]);
            kinds[i] = ConsentKind.ECDSA;
            if (ways[i] % 3 == 0) {
                shown[i] = signatures[i];
            } else if (ways[i] % 3 == 1) {
                _sign(parties[i], signatures[i]);
            } else {
                vm.prank(parties[i]);
                registry.approve(id);
                kinds[i] = ConsentKind.OWN_TRANSACTION;
            }
        }
        vm.prank(caller);
        registry.activate(a, shown, _noAuditors());
        for (uint256 i; i < 3; ++i) {
            assertEq(registry.consentOf(id, parties[i]), kinds[i]);
        }
    }

    function test_contractSignsByERC1271() public {
        a.data[0].owner = address(new Wallet(hospitalA));
        id = registry.agreementIdOf(a);
        signatures = _signatures(a);
        _sign(a.data[0].owner, signatures[1]);
        assertEq(registry.approvalOf(id, a.data[0].owner), ConsentKind.ERC1271);
        signatures[1] = "";
        registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, a.data[0].owner), ConsentKind.ERC1271);
    }

    function test_refusesASignatureOfAnotherAccount() public {
        _refuses(hospitalA, signatures[2]);
    }

    function test_refusesNoSignature() public {
        _refuses(hospitalA, "");
    }

    function test_refusesTheZeroAddress() public {
        _refuses(address(0), new bytes(65));
    }

    /// A signature of the parties' own digest, brought for another agreement's.
    function test_refusesASignatureOverAnotherAgreement() public {
        bytes32 another = keccak256("another");
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, hospitalA, another));
        registry.sign(another, hospitalA, signatures[1]);
    }

    function test_oneSignatureLeftOutIsNoConsent() public {
        _sign(author, signatures[0]);
        _sign(hospitalA, signatures[1]);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NoConsent.selector, hospitalB, id));
        registry.activate(a, new bytes[](3), _noAuditors());
    }

    function test_aStrangersSignatureMakesItNoParty() public {
        (, uint256 strangerKey) = makeAddrAndKey("stranger");
        _sign(stranger, sign(strangerKey, id));
        registry.activate(a, signatures, _noAuditors());
        assertEq(registry.consentOf(id, stranger), ConsentKind.NONE);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_NotAParty.selector, stranger, id));
        vm.prank(stranger);
        registry.revoke(id);
    }

    /// The draft is dead for ever, whichever way a signature comes again.
    function test_revokedDraftTakesNoSignatureAgain() public {
        _sign(hospitalA, signatures[1]);
        vm.prank(hospitalA);
        registry.revoke(id);

        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyRevoked.selector, hospitalA, id));
        registry.sign(id, hospitalA, signatures[1]);
        bytes memory revokedBy = abi.encodeWithSelector(I.AgreementRegistry_RevokedBy.selector, hospitalA, id);
        vm.expectRevert(revokedBy);
        registry.activate(a, signatures, _noAuditors());
        signatures[1] = "";
        vm.expectRevert(revokedBy);
        registry.activate(a, signatures, _noAuditors());
        vm.expectRevert(revokedBy);
        vm.prank(hospitalA);
        registry.activate(a, signatures, _noAuditors());
        assertEq(uint8(registry.status(id)), uint8(I.Status.None));
    }

    function test_aSignatureBroughtAfterTheActivationChangesNothing() public {
        vm.prank(hospitalA);
        registry.approve(id);
        signatures[1] = "";
        registry.activate(a, signatures, _noAuditors());
        _sign(hospitalA, sign(hospitalAKey, id));
        assertEq(registry.consentOf(id, hospitalA), ConsentKind.OWN_TRANSACTION);
        vm.prank(hospitalA);
        registry.revoke(id);
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_AlreadyRevoked.selector, hospitalA, id));
        registry.sign(id, hospitalA, sign(hospitalAKey, id));
        assertEq(uint8(registry.status(id)), uint8(I.Status.Revoked));
    }

    function _sign(address party, bytes memory signature) private {
        vm.prank(stranger);
        registry.sign(id, party, signature);
    }

    function _refuses(address party, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(I.AgreementRegistry_BadSignature.selector, party, id));
        registry.sign(id, party, signature);
    }
}
