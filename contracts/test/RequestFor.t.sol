// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {Agreement, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {PaymentKind, TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Coin} from "./utils/Tokens.sol";
import {Wallet} from "./utils/Wallet.sol";

/// @notice Requests that somebody else brings.
contract RequestForTest is TaskFixture {
    Agreement private a;
    bytes32 private id;
    uint256 private requesterKey;
    address private relayer;
    Coin private coin;

    function setUp() public override {
        super.setUp();
        (, requesterKey) = makeAddrAndKey("requester");
        relayer = makeAddr("relayer");
        vm.deal(relayer, 1 ether);
        vm.deal(requester, 0);
        a = _agreement();
        id = _activate(a);
    }

    // Who asked

    function test_takesTheRequestersSignature() public {
        TaskRequest memory r = _taskRequest(id);
        bytes32 taskId = oracle.taskIdOf(r);
        bytes memory signature = _consent(r);
        vm.expectEmit(address(oracle));
        emit I.TaskRequested(taskId, id, requester, r, "ipfs://inputs");
        vm.prank(relayer);
        assertEq(oracle.requestFor{value: FEE}(r, _anyone(), "ipfs://inputs", signature, _allowance()), taskId);
        I.Task memory t = oracle.task(id, taskId);
        assertEq(t.state, TaskState.REQUESTED);
        assertEq(t.escrow, FEE);
        assertEq(t.cancelUntil, vm.getBlockNumber() + RELEASE_DELAY);
    }

    function test_takesASmartAccountsSignature() public {
        TaskRequest memory r = _taskRequest(id);
        r.requester = address(new Wallet(requester));
        bytes memory signature = _consent(r);
        _relay(r, signature, FEE);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    function test_refusesASmartAccountThatSaysNo() public {
        TaskRequest memory r = _taskRequest(id);
        r.requester = address(new Wallet(stranger));
        _refuses(r, _consent(r), FEE, _badSignature(r));
    }

    /// @dev R7: what is not deployed has signed nothing.
    function test_refusesASmartAccountThatIsNotDeployed() public {
        TaskRequest memory r = _taskRequest(id);
        r.requester = address(new Wallet(requester));
        vm.etch(r.requester, "");
        _refuses(r, _consent(r), FEE, _badSignature(r));
    }

    function test_theRequesterItselfNeedsNoSignature() public {
        TaskRequest memory r = _taskRequest(id);
        vm.deal(requester, FEE);
        vm.prank(requester);
        oracle.requestFor{value: FEE}(r, _anyone(), "", "", _allowance());
        assertEq(_state(r), TaskState.REQUESTED);
    }

    function test_refusesNoSignature() public {
        TaskRequest memory r = _taskRequest(id);
        _refuses(r, "", FEE, _badSignature(r));
    }

    function test_refusesAnothersSignature() public {
        TaskRequest memory r = _taskRequest(id);
        _refuses(r, sign(operatorKey, oracle.taskIdOf(r)), FEE, _badSignature(r));
    }

    function test_refusesNobodysRequest() public {
        TaskRequest memory r = _taskRequest(id);
        r.requester = address(0);
        _refuses(r, _consent(r), FEE, _badSignature(r));
    }

    /// @dev Every field of a request is signed.
    function test_refusesASignatureOverAnotherRequest() public {
        bytes memory signature = _consent(_taskRequest(id));
        for (uint256 field; field < 14; ++field) {
            TaskRequest memory r = _taskRequest(id);
            if (field == 0) r.agreementId = keccak256("another");
            if (field == 1) r.requester = stranger;
            if (field == 2) r.nonce = keccak256("another");
            if (field == 3) r.versions[0] = keccak256("another");
            if (field == 4) r.inputsId = keccak256("another");
            if (field == 5) r.inputShares = keccak256("another");
            if (field == 6) r.params = "another";
            if (field == 7) r.resultKey = keccak256("another");
            if (field == 8) r.spend = 1;
            if (field == 9) r.maxFee += 1;
            if (field == 10) r.asOf -= 1;
            if (field == 11) r.deadline += 1;
            if (field == 12) r.callback = stranger;
            if (field == 13) r.callbackGas = 1;
            _refuses(r, signature, FEE, _badSignature(r));
        }
    }

    function test_callsARelayedContractBack() public {
        _register();
        TaskRequest memory r = _taskRequest(id);
        r.requester = address(new Wallet(requester));
        r.callback = r.requester;
        r.callbackGas = 100_000;
        bytes memory signature = _consent(r);
        _relay(r, signature, FEE);
        // It has no such function, so the callback fails, and is known to have.
        bytes32 taskId = oracle.taskIdOf(r);
        Result memory result = _result(r);
        vm.expectEmit(address(oracle));
        emit I.CallbackFailed(taskId, r.requester);
        _fulfil(a, r, result);
    }

    // Once, and in time

    function test_refusesASecondRelay() public {
        TaskRequest memory r = _taskRequest(id);
        _relay(r, _consent(r), FEE);
        bytes memory exists =
            abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, oracle.taskIdOf(r), TaskState.REQUESTED);
        _refuses(r, _consent(r), FEE, exists);
    }

    function test_isNotRelayedAgainAfterACancel() public {
        TaskRequest memory r = _taskRequest(id);
        _relay(r, _consent(r), FEE);
        vm.prank(requester);
        oracle.cancel(r, _anyone());
        bytes memory exists =
            abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, oracle.taskIdOf(r), TaskState.CANCELLED);
        _refuses(r, _consent(r), FEE, exists);
    }

    function testFuzz_isRelayedForAnHourAtMost(uint256 delay) public {
        TaskRequest memory r = _taskRequest(id);
        r.deadline = uint64(vm.getBlockTimestamp() + 1 days);
        bytes memory signature = _consent(r);
        delay = bound(delay, 0, 2 hours);
        skip(delay);
        if (delay <= 1 hours) {
            _relay(r, signature, FEE);
            assertEq(_state(r), TaskState.REQUESTED);
        } else {
            bytes memory err =
                abi.encodeWithSelector(I.ComputeOracle_BadAsOf.selector, r.asOf, vm.getBlockTimestamp(), 1 hours);
            _refuses(r, signature, FEE, err);
        }
    }

    function test_isNotRelayedAtItsDeadline() public {
        TaskRequest memory r = _taskRequest(id);
        r.deadline = uint64(vm.getBlockTimestamp() + 60);
        bytes memory signature = _consent(r);
        skip(60);
        bytes memory err = abi.encodeWithSelector(I.ComputeOracle_BadDeadline.selector, r.deadline, r.deadline, 30 days);
        _refuses(r, signature, FEE, err);
    }

    // Coins

    function test_theRelayersCoinsComeBackToTheRequester() public {
        TaskRequest memory r = _taskRequest(id);
        _relay(r, _consent(r), FEE);
        assertEq(relayer.balance, 1 ether - FEE);
        assertEq(requester.balance, 0);
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, _pricing(a));
        assertEq(_balance(requester), FEE);
        assertEq(_balance(relayer), 0);
    }

    function test_refusesAnyOtherPayment() public {
        TaskRequest memory r = _taskRequest(id);
        _refuses(r, _consent(r), 0, abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, 0, FEE));
        _refuses(r, _consent(r), FEE + 1, abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, FEE + 1, FEE));
    }

    function test_readsNoPaymentForCoins() public {
        TaskRequest memory r = _taskRequest(id);
        I.Payment memory payment;
        payment.kind = 9;
        bytes memory signature = _consent(r);
        vm.prank(relayer);
        oracle.requestFor{value: FEE}(r, _anyone(), "", signature, payment);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    // Tokens: the requester pays, whoever brings it

    function test_takesTheRequestersAllowance() public {
        TaskRequest memory r = _inCoin();
        coin.mint(relayer, FEE);
        vm.prank(relayer);
        coin.approve(address(oracle), FEE);
        _relayInCoin(r, _allowance());
        assertEq(coin.balanceOf(requester), 100 ether - FEE);
        assertEq(coin.balanceOf(relayer), FEE);
        assertEq(relayer.balance, 1 ether);
    }

    function test_refusesCoinsBesideAToken() public {
        TaskRequest memory r = _inCoin();
        _refuses(r, _consent(r), 1, abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, 1, 0));
    }

    function test_refusesUnknownKindsOfPayment() public {
        TaskRequest memory r = _inCoin();
        I.Payment memory payment;
        payment.kind = 3;
        _refusesInCoin(r, payment, abi.encodeWithSelector(I.ComputeOracle_BadPaymentKind.selector, 3));
    }

    // EIP-2612

    function test_takesAPermit() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        _relayInCoin(r, _permit(FEE));
        assertEq(coin.balanceOf(address(oracle)), FEE);
        assertEq(coin.allowance(requester, address(oracle)), 0);
    }

    function test_takesAPermitOfMore() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        _relayInCoin(r, _permit(3 * FEE));
        assertEq(coin.allowance(requester, address(oracle)), 2 * FEE);
    }

    function test_aPermitThatSomebodyUsedBeforeDoesNoHarm() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _permit(FEE);
        vm.prank(stranger);
        coin.permit(requester, address(oracle), p.value, p.deadline, p.v, p.r, p.s);
        _relayInCoin(r, p);
        assertEq(coin.balanceOf(address(oracle)), FEE);
    }

    function test_aGarbledPermitDoesNoHarmWhereAnAllowanceStands() public {
        TaskRequest memory r = _inCoin();
        I.Payment memory p = _permit(FEE);
        p.r = keccak256("garbage");
        _relayInCoin(r, p);
        assertEq(coin.balanceOf(address(oracle)), FEE);
    }

    function test_refusesAPermitOfLess() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        _refusesInCoin(r, _permit(FEE - 1), _noAllowance(FEE - 1));
    }

    function test_refusesAPermitThatRanOut() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _permit(FEE);
        skip(p.deadline - vm.getBlockTimestamp() + 1);
        _refusesInCoin(r, p, _noAllowance(0));
    }

    function test_refusesAPermitForAnother() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _permit(FEE);
        bytes32 digest = coin.permitDigest(requester, stranger, FEE, p.deadline);
        (p.v, p.r, p.s) = vm.sign(requesterKey, digest);
        _refusesInCoin(r, p, _noAllowance(0));
    }

    /// @dev An allowance is left over from a permit; no stranger can spend it on a request that was not signed.
    function test_whatAPermitLeavesNobodyElseSpends() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        _relayInCoin(r, _permit(2 * FEE));
        r.nonce = keccak256("another");
        r.requester = stranger;
        bytes32 taskId = oracle.taskIdOf(r);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(oracle), 0, FEE)
        );
        vm.prank(stranger);
        oracle.requestFor(r, _anyone(), "", "", _allowance());
        assertEq(oracle.task(r.agreementId, taskId).state, TaskState.NONE);
    }

    function test_aTokenWithoutPermitsTakesAnAllowanceAllTheSame() public {
        a = _inToken(_token("NoReturnValue"));
        coin = Coin(a.price.token);
        TaskRequest memory r = _taskRequest(_activate(a));
        I.Payment memory p;
        p.kind = PaymentKind.PERMIT;
        _relayInCoin(r, p);
        assertEq(coin.balanceOf(address(oracle)), FEE);
    }

    // EIP-3009

    function test_takesAnAuthorization() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        _relayInCoin(r, _authorization(r));
        assertEq(coin.balanceOf(address(oracle)), FEE);
        assertTrue(coin.authorizationState(requester, oracle.taskIdOf(r)));
    }

    function test_refusesAnAuthorizationWithAnotherNonce() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        TaskRequest memory other = _taskRequest(r.agreementId);
        other.nonce = keccak256("another");
        _refusesInCoin(r, _authorization(other), abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector));
    }

    function test_refusesAnAuthorizationThatRanOut() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _authorization(r);
        vm.warp(p.deadline);
        _refusesInCoin(r, p, _badTime(p));
    }

    function test_refusesAnAuthorizationThatIsNotValidYet() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _authorization(r);
        p.validAfter = vm.getBlockTimestamp();
        _authorize(r, p, FEE);
        _refusesInCoin(r, p, _badTime(p));
        skip(1);
        _relayInCoin(r, p);
    }

    /// @dev Less and more: it is for exactly the fee.
    function test_refusesAnAuthorizationOfAnotherAmount() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _authorization(r);
        bytes memory invalid = abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector);
        _authorize(r, p, FEE - 1);
        _refusesInCoin(r, p, invalid);
        _authorize(r, p, FEE + 1);
        _refusesInCoin(r, p, invalid);
    }

    function test_nobodyButTheOracleUsesAnAuthorization() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _authorization(r);
        bytes32 taskId = oracle.taskIdOf(r);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(oracle)));
        vm.prank(stranger);
        coin.receiveWithAuthorization(requester, address(oracle), FEE, p.validAfter, p.deadline, taskId, p.v, p.r, p.s);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector));
        vm.prank(stranger);
        coin.transferWithAuthorization(requester, address(oracle), FEE, p.validAfter, p.deadline, taskId, p.v, p.r, p.s);
        _relayInCoin(r, p);
    }

    /// @dev The signature over the request stays good, the money does not.
    function test_refusesAnAuthorizationThatWasCancelled() public {
        TaskRequest memory r = _inCoinWithoutAllowance();
        I.Payment memory p = _authorization(r);
        bytes32 taskId = oracle.taskIdOf(r);
        bytes32 digest = keccak256(
            abi.encodePacked(
                hex"1901",
                coin.DOMAIN_SEPARATOR(),
                keccak256(
                    abi.encode(keccak256("CancelAuthorization(address authorizer,bytes32 nonce)"), requester, taskId)
                )
            )
        );
        (uint8 v, bytes32 x, bytes32 s) = vm.sign(requesterKey, digest);
        coin.cancelAuthorization(requester, taskId, v, x, s);
        _refusesInCoin(r, p, abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, requester, taskId));
    }

    /// @dev Whoever relays may choose an allowance that stands; the authorization is then worth nothing, its task being there.
    function test_anAuthorizationThatWasNotUsedPaysForNothingElse() public {
        TaskRequest memory r = _inCoin();
        I.Payment memory p = _authorization(r);
        _relayInCoin(r, _allowance());
        bytes memory exists =
            abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, oracle.taskIdOf(r), TaskState.REQUESTED);
        _refusesInCoin(r, p, exists);
        r.nonce = keccak256("another");
        _refusesInCoin(r, p, abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector));
        assertEq(coin.balanceOf(requester), 100 ether - FEE);
    }

    function test_refusesAnAuthorizationAtATokenWithoutThem() public {
        a = _inToken(_token("NoReturnValue"));
        TaskRequest memory r = _taskRequest(_activate(a));
        I.Payment memory p;
        p.kind = PaymentKind.AUTHORIZATION;
        bytes memory signature = _consent(r);
        vm.expectRevert(bytes(""));
        vm.prank(relayer);
        oracle.requestFor(r, _anyone(), "", signature, p);
        assertEq(_state(r), TaskState.NONE);
    }

    function _inCoin() private returns (TaskRequest memory r) {
        a = _inToken(_token("Coin"));
        coin = Coin(a.price.token);
        r = _taskRequest(_activate(a));
    }

    function _inCoinWithoutAllowance() private returns (TaskRequest memory r) {
        r = _inCoin();
        vm.prank(requester);
        coin.approve(address(oracle), 0);
    }

    function _allowance() private pure returns (I.Payment memory payment) {}

    function _permit(uint256 value) private view returns (I.Payment memory p) {
        p.kind = PaymentKind.PERMIT;
        p.value = value;
        p.deadline = vm.getBlockTimestamp() + 10 minutes;
        (p.v, p.r, p.s) = vm.sign(requesterKey, coin.permitDigest(requester, address(oracle), value, p.deadline));
    }

    function _authorization(TaskRequest memory r) private view returns (I.Payment memory p) {
        p.kind = PaymentKind.AUTHORIZATION;
        p.validAfter = vm.getBlockTimestamp() - 1;
        p.deadline = vm.getBlockTimestamp() + 10 minutes;
        _authorize(r, p, FEE);
    }

    function _authorize(TaskRequest memory r, I.Payment memory p, uint256 value) private view {
        bytes32 digest =
            coin.authorizationDigest(requester, address(oracle), value, p.validAfter, p.deadline, oracle.taskIdOf(r));
        (p.v, p.r, p.s) = vm.sign(requesterKey, digest);
    }

    function _consent(TaskRequest memory r) private view returns (bytes memory) {
        return sign(requesterKey, oracle.taskIdOf(r));
    }

    function _relay(TaskRequest memory r, bytes memory signature, uint256 value) private {
        vm.prank(relayer);
        oracle.requestFor{value: value}(r, _anyone(), "", signature, _allowance());
    }

    function _relayInCoin(TaskRequest memory r, I.Payment memory payment) private {
        bytes memory signature = _consent(r);
        vm.prank(relayer);
        oracle.requestFor(r, _anyone(), "", signature, payment);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    function _refuses(TaskRequest memory r, bytes memory signature, uint256 value, bytes memory err) private {
        vm.expectRevert(err);
        _relay(r, signature, value);
    }

    function _refusesInCoin(TaskRequest memory r, I.Payment memory payment, bytes memory err) private {
        bytes memory signature = _consent(r);
        vm.expectRevert(err);
        vm.prank(relayer);
        oracle.requestFor(r, _anyone(), "", signature, payment);
    }

    function _badSignature(TaskRequest memory r) private view returns (bytes memory) {
        return abi.encodeWithSelector(I.ComputeOracle_BadRequestSignature.selector, oracle.taskIdOf(r), r.requester);
    }

    function _badTime(I.Payment memory p) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ERC3009.ERC3009InvalidAuthorizationTime.selector, p.validAfter, p.deadline);
    }

    function _noAllowance(uint256 left) private view returns (bytes memory) {
        return abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(oracle), left, FEE);
    }
}
