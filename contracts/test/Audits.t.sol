// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {FunctionAudits} from "../src/FunctionAudits.sol";
import {Agreement, Audit} from "../src/Types.sol";
import {IAgreementRegistry as R} from "../src/interfaces/IAgreementRegistry.sol";
import {IFunctionAudits as I} from "../src/interfaces/IFunctionAudits.sol";
import {Fixture} from "./Fixture.sol";
import {Wallet} from "./utils/Wallet.sol";

/// @notice Auditors' word about functions, and agreements that need it.
contract AuditsTest is Fixture {
    Agreement private a;
    Audit private audit;
    address[3] private auditors;
    uint256[3] private keys;

    function setUp() public override {
        super.setUp();
        (auditors[0], keys[0]) = makeAddrAndKey("auditor 0");
        (auditors[1], keys[1]) = makeAddrAndKey("auditor 1");
        (auditors[2], keys[2]) = makeAddrAndKey("auditor 2");
        a = _agreement();
        a.auditors = _digest(_agreed(2));
        audit = Audit({functionId: a.fn.id, report: keccak256("report")});
    }

    // Approvals

    function test_approvesByItsOwnTransaction() public {
        vm.expectEmit(address(audits));
        emit I.FunctionApproved(a.fn.id, auditors[0], audit.report);
        _approve(0);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), audit.report);
        assertEq(audits.reportOf(a.fn.id, auditors[1]), 0);
        assertEq(audits.reportOf(keccak256("another"), auditors[0]), 0);
    }

    function test_anyoneBringsAnAuditorsSignature() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        vm.expectEmit(address(audits));
        emit I.FunctionApproved(a.fn.id, auditors[0], audit.report);
        vm.prank(stranger);
        audits.approveFor(auditors[0], audit, signature);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), audit.report);
        assertEq(audits.reportOf(a.fn.id, stranger), 0);
    }

    function test_contractApprovesByERC1271() public {
        address firm = address(new Wallet(auditors[0]));
        audits.approveFor(firm, audit, sign(keys[0], audits.auditDigestOf(audit)));
        assertEq(audits.reportOf(a.fn.id, firm), audit.report);
    }

    function test_digestIsInTheContractsDomain() public view {
        bytes32 domain = audits.domainSeparator();
        assertNotEq(domain, registry.domainSeparator());
        assertEq(audits.auditDigestOf(audit), MessageHashUtils.toTypedDataHash(domain, hashing.audit(audit)));
    }

    function test_refusesAnApprovalOfNothing() public {
        audit.functionId = 0;
        _refusesToApprove(abi.encodeWithSelector(I.FunctionAudits_Zero.selector, "functionId"));
    }

    /// An approval says what was found.
    function test_refusesAnApprovalWithoutAReport() public {
        audit.report = 0;
        _refusesToApprove(abi.encodeWithSelector(I.FunctionAudits_Zero.selector, "report"));
    }

    function test_refusesASignatureOfAnother() public {
        _refusesSignature(auditors[0], sign(keys[1], audits.auditDigestOf(audit)));
    }

    function test_refusesTheZeroAddressAsAuditor() public {
        _refusesSignature(address(0), new bytes(65));
    }

    function test_refusesASignatureOfAnotherReport() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        audit.report = keccak256("a better report");
        _refusesSignature(auditors[0], signature);
    }

    function test_refusesASignatureOfAnotherFunction() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        audit.functionId = keccak256("another");
        _refusesSignature(auditors[0], signature);
    }

    function test_refusesASignatureOfAnotherChain() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        vm.chainId(1);
        _refusesSignature(auditors[0], signature);
    }

    function test_refusesASignatureForAnotherContract() public {
        FunctionAudits another = FunctionAudits(deploy("FunctionAudits.sol:FunctionAudits", ""));
        _refusesSignature(auditors[0], sign(keys[0], another.auditDigestOf(audit)));
    }

    // Withdrawing

    function test_withdraws() public {
        _approve(0);
        vm.expectEmit(address(audits));
        emit I.ApprovalWithdrawn(a.fn.id, auditors[0]);
        _withdraw(0);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), 0);
    }

    function test_withdrawsForItselfOnly() public {
        _approve(0);
        vm.prank(stranger);
        audits.withdraw(a.fn.id);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), audit.report);
    }

    function test_refusesToWithdrawTwice() public {
        _approve(0);
        _withdraw(0);
        _refusesWithdrawn();
    }

    function test_withdrawnSignatureCannotBeShownAgain() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        audits.approveFor(auditors[0], audit, signature);
        _withdraw(0);
        _refusesReplay(signature);
    }

    /// A signature that the auditor gave away and nobody showed yet.
    function test_signatureWithdrawnBeforeItWasShownIsRefused() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        _withdraw(0);
        _refusesReplay(signature);
    }

    function test_approvesAnewByItsOwnTransaction() public {
        _withdraw(0);
        _approve(0);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), audit.report);
        _withdraw(0);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), 0);
        _refusesWithdrawn();
    }

    /// Else whoever kept the signature could put the report that was withdrawn in the place of the new one.
    function test_withdrawnSignatureIsRefusedAlsoAfterAnApprovalAnew() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        audits.approveFor(auditors[0], audit, signature);
        _withdraw(0);
        Audit memory anew = Audit({functionId: a.fn.id, report: keccak256("second report")});
        vm.prank(auditors[0]);
        audits.approve(anew);
        _refusesReplay(signature);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), anew.report);
    }

    /// Anyone brings signatures: else whoever kept one could put back an older report at will.
    function test_olderSignatureTakesNoNewerReportsPlace() public {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        Audit memory newer = Audit({functionId: a.fn.id, report: keccak256("second report")});
        vm.prank(auditors[0]);
        audits.approve(newer);
        vm.expectRevert(
            abi.encodeWithSelector(I.FunctionAudits_AlreadyApproved.selector, a.fn.id, auditors[0], newer.report)
        );
        audits.approveFor(auditors[0], audit, signature);
        assertEq(audits.reportOf(a.fn.id, auditors[0]), newer.report);
    }

    // Agreements that need them

    function testFuzz_activatesExactlyWithAsManyApprovalsAsAgreed(uint8 threshold, uint8 approvals) public {
        threshold = uint8(bound(threshold, 1, 3));
        uint256 count;
        for (uint256 i; i < 3; ++i) {
            if (approvals & (1 << i) == 0) continue;
            _approve(i);
            ++count;
        }
        a.auditors = _digest(_agreed(threshold));
        if (count >= threshold) _activateWith(_agreed(threshold));
        else _refuses(_agreed(threshold), _notAudited(count, threshold));
    }

    function test_activatesWithEnoughApprovals() public {
        _approve(2);
        _refuses(_agreed(2), _notAudited(1, 2));
        _approve(0);
        _activateWith(_agreed(2));
    }

    function test_approvalWithdrawnBeforeTheActivationDoesNotCount() public {
        _approve(0);
        _approve(1);
        _withdraw(1);
        _refuses(_agreed(2), _notAudited(1, 2));
    }

    /// The parties decide what follows.
    function test_approvalWithdrawnAfterTheActivationEndsNothing() public {
        _approve(0);
        _approve(1);
        bytes32 id = _activateWith(_agreed(2));
        _withdraw(0);
        _withdraw(1);
        assertEq(uint8(registry.status(id)), uint8(R.Status.Active));
        _request(_taskRequest(id));
    }

    function test_approvalOfAnotherFunctionDoesNotCount() public {
        _approve(0);
        audit.functionId = keccak256("another");
        _approve(1);
        _refuses(_agreed(2), _notAudited(1, 2));
    }

    function test_approvalOfAnotherAuditorDoesNotCount() public {
        _approve(0);
        vm.prank(stranger);
        audits.approve(audit);
        _refuses(_agreed(2), _notAudited(1, 2));
    }

    function test_refusesOneAuditorTwice() public {
        _approve(0);
        R.Auditors memory list = _agreed(2);
        list.accounts[1] = list.accounts[0];
        a.auditors = _digest(list);
        _refuses(list, abi.encodeWithSelector(R.AgreementRegistry_Duplicate.selector, "auditors", 1));
    }

    function test_refusesAThresholdThatIsNoneOrCannotBeMet() public {
        _approve(0);
        R.Auditors memory list = _agreed(0);
        a.auditors = _digest(list);
        _refuses(list, abi.encodeWithSelector(R.AgreementRegistry_OutOfRange.selector, "auditors.threshold", 0, 1, 3));
        list = _agreed(4);
        a.auditors = _digest(list);
        _refuses(list, abi.encodeWithSelector(R.AgreementRegistry_OutOfRange.selector, "auditors.threshold", 4, 1, 3));
    }

    function test_takesSixteenAuditorsAndNoMore() public {
        _approve(0);
        R.Auditors memory list = _crowd(17);
        a.auditors = _digest(list);
        _refuses(list, abi.encodeWithSelector(R.AgreementRegistry_BadCount.selector, "auditors", 17, 1, 16));
        list = _crowd(16);
        a.auditors = _digest(list);
        _activateWith(list);
    }

    function test_refusesAuditorsOtherThanAgreed() public {
        _approve(0);
        _approve(1);
        _refusesOthers(_agreed(1));
        R.Auditors memory list = _agreed(2);
        list.accounts[2] = stranger;
        _refusesOthers(list);
        list = _agreed(2);
        (list.accounts[0], list.accounts[1]) = (list.accounts[1], list.accounts[0]);
        _refusesOthers(list);
        _refusesOthers(_noAuditors());
    }

    function test_refusesAuditorsWhereNoneWereAgreed() public {
        _approve(0);
        _approve(1);
        a.auditors = 0;
        _refusesOthers(_agreed(2));
        _activateWith(_noAuditors());
    }

    function test_tellsItsInterfaces() public view {
        assertTrue(audits.supportsInterface(type(I).interfaceId));
        assertTrue(audits.supportsInterface(type(IERC165).interfaceId));
        assertFalse(audits.supportsInterface(0xffffffff));
    }

    function _agreed(uint8 threshold) private view returns (R.Auditors memory list) {
        list.accounts = new address[](3);
        for (uint256 i; i < 3; ++i) {
            list.accounts[i] = auditors[i];
        }
        list.threshold = threshold;
    }

    /// @dev One of whom is enough: the first.
    function _crowd(uint256 count) private view returns (R.Auditors memory list) {
        list.accounts = new address[](count);
        for (uint256 i; i < count; ++i) {
            list.accounts[i] = i == 0 ? auditors[0] : address(uint160(i));
        }
        list.threshold = 1;
    }

    function _digest(R.Auditors memory list) private pure returns (bytes32) {
        return keccak256(abi.encode(list.accounts, list.threshold));
    }

    function _approve(uint256 i) private {
        vm.prank(auditors[i]);
        audits.approve(audit);
    }

    function _withdraw(uint256 i) private {
        vm.prank(auditors[i]);
        audits.withdraw(a.fn.id);
    }

    function _activateWith(R.Auditors memory list) private returns (bytes32) {
        return registry.activate(a, _signatures(a), list);
    }

    function _notAudited(uint256 approvals, uint8 threshold) private view returns (bytes memory) {
        return abi.encodeWithSelector(R.AgreementRegistry_NotAudited.selector, a.fn.id, approvals, threshold);
    }

    function _refusesOthers(R.Auditors memory list) private {
        bytes32 got = list.accounts.length == 0 ? bytes32(0) : _digest(list);
        _refuses(list, abi.encodeWithSelector(R.AgreementRegistry_WrongAuditors.selector, got, a.auditors));
    }

    function _refuses(R.Auditors memory list, bytes memory err) private {
        bytes[] memory signatures = _signatures(a);
        vm.expectRevert(err);
        registry.activate(a, signatures, list);
    }

    function _refusesToApprove(bytes memory err) private {
        bytes memory signature = sign(keys[0], audits.auditDigestOf(audit));
        vm.expectRevert(err);
        _approve(0);
        vm.expectRevert(err);
        audits.approveFor(auditors[0], audit, signature);
    }

    function _refusesSignature(address auditor, bytes memory signature) private {
        bytes32 digest = audits.auditDigestOf(audit);
        vm.expectRevert(abi.encodeWithSelector(I.FunctionAudits_BadSignature.selector, auditor, digest));
        audits.approveFor(auditor, audit, signature);
    }

    function _refusesReplay(bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(I.FunctionAudits_Withdrawn.selector, a.fn.id, auditors[0]));
        audits.approveFor(auditors[0], audit, signature);
    }

    function _refusesWithdrawn() private {
        vm.expectRevert(abi.encodeWithSelector(I.FunctionAudits_Withdrawn.selector, a.fn.id, auditors[0]));
        _withdraw(0);
    }
}
