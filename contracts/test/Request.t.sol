// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {ComputeOracle} from "../src/ComputeOracle.sol";
import {Agreement, TaskRequest} from "../src/Types.sol";
import {IAgreementRegistry as R} from "../src/interfaces/IAgreementRegistry.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {ANYONE, TaskState} from "../src/libraries/Constants.sol";
import {TaskFixture} from "./TaskFixture.sol";
import {Coin, Reverting} from "./utils/Tokens.sol";
import {Wallet} from "./utils/Wallet.sol";

contract RequestTest is TaskFixture {
    Agreement private a;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        id = _activate(a);
    }

    function test_keepsTheTaskAndItsFee() public {
        TaskRequest memory r = _taskRequest(id);
        bytes32 taskId = oracle.taskIdOf(r);
        vm.expectEmit(address(oracle));
        emit I.TaskRequested(taskId, id, requester, r, "ipfs://inputs");
        vm.prank(requester);
        assertEq(oracle.request{value: FEE}(r, _anyone(), "ipfs://inputs"), taskId);

        I.Task memory t = oracle.task(id, taskId);
        assertEq(t.state, TaskState.REQUESTED);
        assertEq(t.requestBlock, vm.getBlockNumber());
        assertEq(t.deadline, r.deadline);
        assertEq(t.cancelUntil, vm.getBlockNumber() + RELEASE_DELAY);
        assertEq(t.escrow, FEE);
        assertEq(bytes32(t.resultDigest), bytes32(0));
        assertEq(address(oracle).balance, FEE);
        assertEq(registry.agreement(id).used, 1);
    }

    function test_taskIdIsTheDigestInTheOraclesDomain() public view {
        TaskRequest memory r = _taskRequest(id);
        assertEq(oracle.taskIdOf(r), MessageHashUtils.toTypedDataHash(oracle.domainSeparator(), hashing.taskRequest(r)));
        assertNotEq(oracle.domainSeparator(), registry.domainSeparator());
    }

    function test_takesAFreeTask() public {
        a.price.fee = 0;
        a.price.failedFee = 0;
        TaskRequest memory r = _taskRequest(_activate(a));
        r.maxFee = 0;
        vm.prank(requester);
        bytes32 taskId = oracle.request(r, _anyone(), "");
        assertEq(oracle.task(r.agreementId, taskId).escrow, 0);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    function test_refusesRequestForAnother() public {
        TaskRequest memory r = _taskRequest(id);
        vm.deal(stranger, FEE);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotRequester.selector, stranger, requester));
        vm.prank(stranger);
        oracle.request{value: FEE}(r, _anyone(), "");
    }

    function test_refusesTwice() public {
        TaskRequest memory r = _taskRequest(id);
        bytes32 taskId = _request(r);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_TaskExists.selector, taskId, TaskState.REQUESTED));
    }

    function test_refusesWhatLaterVersionsDo() public {
        TaskRequest memory r = _taskRequest(id);
        r.inputsId = keccak256("inputs");
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotYetSupported.selector, "inputsId"));
        r = _taskRequest(id);
        r.inputShares = keccak256("shares");
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_NotYetSupported.selector, "inputShares"));
    }

    function test_refusesToSpendWhereThereIsNoBudget() public {
        TaskRequest memory r = _taskRequest(id);
        r.spend = 1;
        _refuses(r, abi.encodeWithSelector(R.AgreementRegistry_NothingToSpend.selector, 1));
    }

    // Times

    function testFuzz_takesAsOfWithinTheLastHour(uint64 asOf) public {
        uint256 time = vm.getBlockTimestamp();
        TaskRequest memory r = _taskRequest(id);
        r.asOf = uint64(bound(asOf, time - 2 hours, time + 1 hours));
        if (r.asOf <= time && r.asOf >= time - 1 hours) _request(r);
        else _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadAsOf.selector, r.asOf, time, 1 hours));
    }

    function test_takesBothEndsOfAsOf() public {
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp()));
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp() - 1 hours));
    }

    function test_refusesAnAsOfOneSecondOff() public {
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp() + 1));
        testFuzz_takesAsOfWithinTheLastHour(uint64(vm.getBlockTimestamp() - 1 hours - 1));
    }

    function testFuzz_takesDeadlinesWithinThirtyDays(uint64 deadline) public {
        uint256 time = vm.getBlockTimestamp();
        TaskRequest memory r = _taskRequest(id);
        r.deadline = uint64(bound(deadline, time - 1 hours, time + 60 days));
        if (r.deadline > time && r.deadline <= time + 30 days) _request(r);
        else _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadDeadline.selector, r.deadline, time, 30 days));
    }

    function test_takesTheFirstAndTheLastDeadline() public {
        testFuzz_takesDeadlinesWithinThirtyDays(uint64(vm.getBlockTimestamp() + 1));
        testFuzz_takesDeadlinesWithinThirtyDays(uint64(vm.getBlockTimestamp() + 30 days));
    }

    function test_refusesADeadlineThatIsNow() public {
        testFuzz_takesDeadlinesWithinThirtyDays(uint64(vm.getBlockTimestamp()));
        testFuzz_takesDeadlinesWithinThirtyDays(uint64(vm.getBlockTimestamp() + 30 days + 1));
    }

    // Money and size

    function test_refusesFeeAboveMax() public {
        TaskRequest memory r = _taskRequest(id);
        r.maxFee = FEE - 1;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_FeeAboveMax.selector, FEE, FEE - 1));
    }

    function testFuzz_refusesAnyOtherPayment(uint256 value) public {
        value = bound(value, 0, 1 ether);
        vm.assume(value != FEE);
        TaskRequest memory r = _taskRequest(id);
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, value, FEE));
        vm.prank(requester);
        oracle.request{value: value}(r, _anyone(), "");
    }

    function test_refusesLongParams() public {
        TaskRequest memory r = _taskRequest(id);
        r.params = new bytes(4097);
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_ParamsTooLong.selector, 4097, 4096));
        r.params = new bytes(4096);
        _request(r);
    }

    function test_refusesLongUri() public {
        TaskRequest memory r = _taskRequest(id);
        vm.prank(requester);
        oracle.request{value: FEE}(r, _anyone(), string(new bytes(2048)));
        r.nonce = keccak256("another");
        string memory uri = string(new bytes(2049));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_UriTooLong.selector, 2049, 2048));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _anyone(), uri);
    }

    // Callback

    function test_refusesGasWithoutCallback() public {
        TaskRequest memory r = _taskRequest(id);
        r.callbackGas = 1;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallbackGas.selector, 1, 0, 0));
    }

    function test_refusesCallbackOfAnother() public {
        TaskRequest memory r = _taskRequest(id);
        r.callback = address(registry);
        r.callbackGas = 100_000;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallback.selector, address(registry), requester));
    }

    function test_refusesCallbackWithoutCode() public {
        TaskRequest memory r = _taskRequest(id);
        r.callback = requester;
        r.callbackGas = 100_000;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallback.selector, requester, requester));
    }

    function test_refusesBadCallbackGas() public {
        TaskRequest memory r = _taskRequest(id);
        r.requester = address(new Wallet(requester));
        vm.deal(r.requester, FEE);
        r.callback = r.requester;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallbackGas.selector, 0, 1, 1_000_000));
        r.callbackGas = 1_000_001;
        _refuses(r, abi.encodeWithSelector(I.ComputeOracle_BadCallbackGas.selector, 1_000_001, 1, 1_000_000));
        r.callbackGas = 1_000_000;
        _request(r);
    }

    // Tokens

    function test_takesTheFeeInTheAgreementsToken() public {
        Coin coin = Coin(_token("Coin"));
        TaskRequest memory r = _taskRequest(_activate(_inToken(address(coin))));
        bytes32 taskId = _requestInToken(r);
        assertEq(oracle.task(r.agreementId, taskId).escrow, FEE);
        assertEq(coin.balanceOf(address(oracle)), FEE);
        assertEq(coin.balanceOf(requester), 100 ether - FEE);
    }

    function test_refusesWithoutAnAllowance() public {
        Coin coin = Coin(_token("Coin"));
        TaskRequest memory r = _taskRequest(_activate(_inToken(address(coin))));
        vm.prank(requester);
        coin.approve(address(oracle), FEE - 1);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(oracle), FEE - 1, FEE)
        );
        _requestInToken(r);
    }

    function test_refusesCoinsWhereTheFeeIsInAToken() public {
        TaskRequest memory r = _taskRequest(_activate(_inToken(_token("Coin"))));
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_WrongPayment.selector, FEE, 0));
        vm.prank(requester);
        oracle.request{value: FEE}(r, _anyone(), "");
    }

    function test_asksNothingOfATokenForAFreeTask() public {
        a = _inToken(_token("Reverting"));
        (a.price.fee, a.price.failedFee) = (0, 0);
        Reverting(a.price.token).set(true);
        TaskRequest memory r = _taskRequest(_activate(a));
        _requestInToken(r);
        assertEq(_state(r), TaskState.REQUESTED);
    }

    // The agreement

    function test_refusesUnknownAgreement() public {
        TaskRequest memory r = _taskRequest(keccak256("unknown"));
        _refuses(r, abi.encodeWithSelector(R.AgreementRegistry_NotActive.selector, r.agreementId, R.Status.None));
    }

    function test_refusesOracleOfAnotherAgreement() public {
        ComputeOracle another = _deployOracle(registry);
        TaskRequest memory r = _taskRequest(id);
        vm.expectRevert(
            abi.encodeWithSelector(R.AgreementRegistry_NotOracle.selector, address(another), address(oracle))
        );
        vm.prank(requester);
        another.request{value: FEE}(r, _anyone(), "");
    }

    function test_onlyTheOracleSpendsAndUnspends() public {
        bytes memory notOracle =
            abi.encodeWithSelector(R.AgreementRegistry_NotOracle.selector, stranger, address(oracle));
        TaskRequest memory r = _taskRequest(id);
        vm.startPrank(stranger);
        vm.expectRevert(notOracle);
        registry.spend(id, stranger, r.versions, 0, _anyone());
        vm.expectRevert(notOracle);
        registry.unspend(id, stranger, r.versions, 0, _anyone());
    }

    function test_refusesBeforeTheWindow() public {
        a.notBefore = uint64(vm.getBlockTimestamp() + 1);
        TaskRequest memory r = _taskRequest(_activate(a));
        _refuses(
            r,
            abi.encodeWithSelector(
                R.AgreementRegistry_OutsideWindow.selector, vm.getBlockTimestamp(), a.notBefore, a.notAfter
            )
        );
        skip(1);
        _request(r);
    }

    function test_refusesAfterTheWindow() public {
        vm.warp(a.notAfter);
        TaskRequest memory r = _taskRequest(id);
        _refuses(
            r, abi.encodeWithSelector(R.AgreementRegistry_OutsideWindow.selector, a.notAfter, a.notBefore, a.notAfter)
        );
    }

    function test_refusesOtherVersions() public {
        TaskRequest memory r = _taskRequest(id);
        r.versions[1] = keccak256("another dataset");
        _refuses(
            r,
            abi.encodeWithSelector(
                R.AgreementRegistry_WrongAdmission.selector,
                _admissionHash(ANYONE, r.versions[0], r.versions[1]),
                _admissionHash(ANYONE, DATASET_A, DATASET_B)
            )
        );
    }

    function test_takesListedRequestersOnly() public {
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(requester, uint64(10)))));
        bytes32 other = keccak256(bytes.concat(keccak256(abi.encode(hospitalA, uint64(10)))));
        a.access.requesters = leaf < other ? keccak256(bytes.concat(leaf, other)) : keccak256(bytes.concat(other, leaf));
        TaskRequest memory r = _taskRequest(_activate(a));
        R.Admission memory admission = R.Admission(a.access.requesters, 10, _one(other), new R.DataTerm[](0));

        TaskRequest memory unlisted = _taskRequest(r.agreementId);
        unlisted.requester = stranger;
        vm.deal(stranger, FEE);
        vm.expectRevert(
            abi.encodeWithSelector(R.AgreementRegistry_RequesterNotAllowed.selector, stranger, a.access.requesters)
        );
        vm.prank(stranger);
        oracle.request{value: FEE}(unlisted, admission, "");

        vm.prank(requester);
        oracle.request{value: FEE}(r, admission, "");
        assertEq(_state(r), TaskState.REQUESTED);
    }

    // Quota (R9)

    function test_refusesPastTheQuota() public {
        TaskRequest memory r = _taskRequest(id);
        for (uint256 i; i < a.access.quota; ++i) {
            r.nonce = bytes32(i);
            _request(r);
        }
        r.nonce = keccak256("one more");
        _refuses(r, abi.encodeWithSelector(R.AgreementRegistry_QuotaSpent.selector, id, 10));
        assertEq(registry.usedBy(id, requester), 0);
    }

    function test_refusesPastTheRequestersQuota() public {
        a.access.quotaPerRequester = 2;
        TaskRequest memory r = _taskRequest(_activate(a));
        _request(r);
        r.nonce = keccak256("second");
        _request(r);
        assertEq(registry.usedBy(r.agreementId, requester), 2);
        r.nonce = keccak256("third");
        _refuses(
            r, abi.encodeWithSelector(R.AgreementRegistry_RequesterQuotaSpent.selector, r.agreementId, requester, 2)
        );

        r.requester = stranger;
        vm.deal(stranger, FEE);
        _request(r);
        assertEq(registry.usedBy(r.agreementId, stranger), 1);
    }

    function test_saysWhichInterfacesItHas() public view {
        assertEq(address(oracle.agreements()), address(registry));
        assertTrue(oracle.supportsInterface(type(I).interfaceId));
        assertTrue(oracle.supportsInterface(type(IERC165).interfaceId));
        assertFalse(oracle.supportsInterface(0xffffffff));
    }

    function test_refusesRegistryWithoutCode() public {
        vm.expectRevert(abi.encodeWithSelector(I.ComputeOracle_NotAContract.selector, stranger));
        _deployOracle(R(stranger));
    }

    function _admissionHash(bytes32 requesters, bytes32 first, bytes32 second) private pure returns (bytes32) {
        return keccak256(abi.encode(requesters, keccak256(bytes.concat(first, second))));
    }

    function _refuses(TaskRequest memory r, bytes memory err) private {
        vm.expectRevert(err);
        vm.prank(r.requester);
        oracle.request{value: FEE}(r, _anyone(), "");
    }
}
