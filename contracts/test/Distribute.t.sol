// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, TaskRequest} from "../src/Types.sol";
import {IComputeOracle as I} from "../src/interfaces/IComputeOracle.sol";
import {TaskFixture} from "./TaskFixture.sol";

contract DistributeTest is TaskFixture {
    Agreement private a;
    bytes32 private id;
    uint256 private _nonce;

    function setUp() public override {
        super.setUp();
        _register();
        a = _roomy(1000);
        id = _activate(a);
    }

    function test_anyoneMovesThePoolToItsShares() public {
        _settle(2);
        uint256 pool = 2 * FEE * 55 / 100;
        I.Pricing memory pricing = _pricing(a);
        vm.expectEmit(address(oracle));
        emit I.Distributed(id, NATIVE, pool);
        vm.prank(stranger);
        assertEq(oracle.distribute(id, pricing), pool);
        assertEq(_balance(hospitalA), 2 * FEE * 30 / 100);
        assertEq(_balance(hospitalB), 2 * FEE * 25 / 100);
        assertEq(oracle.poolOf(id), 0);
    }

    function test_movesMinimumFeesToo() public {
        _reprice(100, 10, 0, 3000, 2500);
        TaskRequest memory r = _ask();
        vm.warp(uint256(r.deadline) + 1);
        oracle.expire(r, _pricing(a));
        assertEq(oracle.distribute(id, _pricing(a)), 9);
        // 10 × 3000 / 5500 = 5.45, 10 × 2500 / 5500 = 4.54
        assertEq(_balance(hospitalA), 5);
        assertEq(_balance(hospitalB), 4);
        assertEq(oracle.poolOf(id), 1);
    }

    function test_refusesAnEmptyPool() public {
        _refuses(id, abi.encodeWithSelector(I.ComputeOracle_NothingToDistribute.selector, id));
        _settle(1);
        oracle.distribute(id, _pricing(a));
        _refuses(id, abi.encodeWithSelector(I.ComputeOracle_NothingToDistribute.selector, id));
    }

    /// @dev One wei that nobody's share is: it waits for more.
    function test_refusesWhatDoesNotDivide() public {
        _reprice(2, 0, 0, 5000, 5000);
        _settle(1);
        assertEq(oracle.poolOf(id), 2);
        oracle.distribute(id, _pricing(a));
        assertEq(_balance(hospitalB), 1);

        _reprice(1, 0, 0, 5000, 5000);
        _settle(1);
        assertEq(oracle.poolOf(id), 1);
        _refuses(id, abi.encodeWithSelector(I.ComputeOracle_NothingToDistribute.selector, id));
        _settle(1);
        assertEq(oracle.distribute(id, _pricing(a)), 2);
        assertEq(oracle.poolOf(id), 0);
    }

    function test_refusesWhereNothingIsShared() public {
        _reprice(100, 0, 0, 0, 0);
        _settle(1);
        assertEq(_balance(payee), 100);
        _refuses(id, abi.encodeWithSelector(I.ComputeOracle_NothingToDistribute.selector, id));
    }

    function test_refusesAnotherPrice() public {
        _settle(1);
        bytes32 expected = registry.settlementHashOf(id);
        a.price.to[0] = stranger;
        bytes32 got = hashing.settlementHash(a.enclaveRegistry, hashing.enclaves(a.tee), a.price);
        _refuses(id, abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, got, expected));
    }

    function test_refusesAnUnknownAgreement() public {
        bytes32 got = hashing.settlementHash(a.enclaveRegistry, hashing.enclaves(a.tee), a.price);
        _refuses(
            keccak256("unknown"), abi.encodeWithSelector(I.ComputeOracle_WrongSettlement.selector, got, bytes32(0))
        );
    }

    /// @dev R8: narrowing takes nobody's money.
    function test_movesTheirSharesAfterARevocation() public {
        _settle(1);
        vm.prank(hospitalB);
        registry.revoke(id);
        oracle.distribute(id, _pricing(a));
        assertEq(_balance(hospitalB), FEE * 25 / 100);
    }

    function test_leavesOtherPoolsAlone() public {
        _settle(1);
        bytes32 first = id;
        _reprice(FEE, 0, 0, 3000, 2500);
        _settle(1);
        oracle.distribute(id, _pricing(a));
        assertEq(oracle.poolOf(first), FEE * 55 / 100);
        assertEq(_balance(hospitalA), FEE * 30 / 100);
    }

    function test_movesATokenInTheToken() public {
        address coin = _token("Coin");
        a = _inToken(coin);
        id = _activate(a);
        TaskRequest memory r = _taskRequest(id);
        _requestInToken(r);
        _fulfil(a, r, _result(r));
        oracle.distribute(id, _pricing(a));
        assertEq(oracle.balanceOf(coin, hospitalA), FEE * 30 / 100);
        assertEq(_balance(hospitalA), 0);
    }

    function test_paysOneThatIsListedTwiceTwice() public {
        a.price.to[1] = hospitalA;
        id = _activate(a);
        _settle(1);
        oracle.distribute(id, _pricing(a));
        assertEq(_balance(hospitalA), FEE * 55 / 100);
    }

    /// @dev Settlements with `distribute` between any of them: nothing is lost but what stays in the pool, which is less than
    /// one unit per share; nobody gets more than its part by more than one unit per call.
    function testFuzz_losesNothingWheneverItIsCalled(uint128 fee, uint16 bpsA, uint16 bpsB, uint256 moments) public {
        fee = uint128(bound(fee, 0, 1e24));
        bpsA = uint16(bound(bpsA, 0, 10_000));
        bpsB = uint16(bound(bpsB, 0, 10_000 - bpsA));
        // Small fees are where rounding shows.
        if (moments & 1 == 1) fee = uint128(fee % 20);
        _reprice(fee, 0, 0, bpsA, bpsB);
        uint256 calls;
        uint256 out;
        for (uint256 i; i < 12; ++i) {
            _settle(1);
            if (moments >> (i + 1) & 1 == 0) continue;
            (bool done, bytes memory answer) = address(oracle).call(abi.encodeCall(I.distribute, (id, _pricing(a))));
            if (!done) continue;
            ++calls;
            out += abi.decode(answer, (uint256));
            assertLt(oracle.poolOf(id), 2, "dust");
        }
        uint256 shared = uint256(fee) * (uint256(bpsA) + bpsB) / 10_000;
        assertEq(out + oracle.poolOf(id), 12 * shared, "in = out + pool");
        assertEq(_balance(hospitalA) + _balance(hospitalB), out, "out");
        assertEq(_balance(payee), 12 * (fee - shared), "payee");
        if (out == 0) return;
        uint256 exact = out * bpsA / (uint256(bpsA) + bpsB);
        assertApproxEqAbs(_balance(hospitalA), exact, calls + 1, "part");
    }

    /// @dev Sixteen shares, as many as an agreement may have.
    function testFuzz_dustIsLessThanOneUnitPerShare(uint128 fee, uint16[16] memory weights) public {
        a.price.fee = bound(fee, 1, 1e24);
        a.price.failedFee = 0;
        a.price.to = new address[](16);
        a.price.bps = new uint16[](16);
        uint256 sum;
        for (uint256 i; i < 16; ++i) {
            a.price.to[i] = address(uint160(0xa000 + i));
            a.price.bps[i] = uint16(bound(weights[i], 0, 625));
            sum += a.price.bps[i];
        }
        vm.assume(sum != 0);
        id = _activate(a);
        _settle(1);
        uint256 pool = oracle.poolOf(id);
        assertEq(pool, a.price.fee * sum / 10_000);
        (bool done,) = address(oracle).call(abi.encodeCall(I.distribute, (id, _pricing(a))));
        assertLt(oracle.poolOf(id), 16);
        if (!done) assertLt(pool, 16);
        uint256 paid;
        for (uint256 i; i < 16; ++i) {
            assertEq(_balance(a.price.to[i]), done ? pool * a.price.bps[i] / sum : 0);
            paid += _balance(a.price.to[i]);
        }
        assertEq(paid + oracle.poolOf(id), pool);
    }

    function _reprice(uint256 fee, uint256 minFee, uint256 failedFee, uint16 bpsA, uint16 bpsB) private {
        (a.price.fee, a.price.minFee, a.price.failedFee) = (fee, minFee, failedFee);
        (a.price.bps[0], a.price.bps[1]) = (bpsA, bpsB);
        a.salt = keccak256(abi.encode(a.salt));
        id = _activate(a);
    }

    function _ask() private returns (TaskRequest memory r) {
        r = _taskRequest(id);
        r.nonce = bytes32(_nonce++);
        r.maxFee = a.price.fee;
        vm.deal(requester, a.price.fee);
        vm.prank(requester);
        oracle.request{value: a.price.fee}(r, _anyone(), "");
    }

    function _settle(uint256 count) private {
        for (uint256 i; i < count; ++i) {
            TaskRequest memory r = _ask();
            _fulfil(a, r, _result(r));
        }
    }

    function _refuses(bytes32 agreementId, bytes memory err) private {
        I.Pricing memory pricing = _pricing(a);
        vm.expectRevert(err);
        oracle.distribute(agreementId, pricing);
    }
}
