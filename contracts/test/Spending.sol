// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement} from "../src/Types.sol";
import {IAgreementRegistry as I} from "../src/interfaces/IAgreementRegistry.sol";
import {Confirmation} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";

/// @title What the tests of spending share: the registry, asked as its oracle asks it
abstract contract Spending is Fixture {
    bytes32 internal constant LINEAGE = keccak256("lineage");

    Agreement internal a;
    bytes32[] internal versions;

    function setUp() public override {
        super.setUp();
        a = _agreement();
        versions.push(DATASET_A);
        versions.push(DATASET_B);
    }

    function _budget(uint256 budget) internal {
        a.data[0].lineage = LINEAGE;
        a.data[0].budget = budget;
        a.keys.confirmation = Confirmation.FINALIZED;
        a.keys.confirmBlocks = 0;
    }

    function _activateBudgeted(uint256 budget) internal returns (bytes32) {
        _budget(budget);
        return _activate(a);
    }

    function _spend(bytes32 id, uint256 amount, I.Admission memory admission) internal {
        vm.prank(address(oracle));
        registry.spend(id, requester, versions, amount, admission);
    }

    function _spendAs(address who, bytes32 id, I.Admission memory admission) internal {
        vm.prank(address(oracle));
        registry.spend(id, who, versions, 0, admission);
    }

    function _unspend(bytes32 id, uint256 amount, I.Admission memory admission) internal {
        vm.prank(address(oracle));
        registry.unspend(id, requester, versions, amount, admission);
    }

    function _refuses(bytes32 id, uint256 amount, I.Admission memory admission, bytes memory err) internal {
        vm.expectRevert(err);
        _spend(id, amount, admission);
    }

    function _refusesAdmission(bytes32 id, uint256 amount, I.Admission memory admission) internal {
        _refuses(id, amount, admission, _wrongAdmission(id, admission));
    }

    function _wrongAdmission(bytes32 id, I.Admission memory admission) internal view returns (bytes memory) {
        bytes32 data = admission.data.length == 0
            ? keccak256(abi.encodePacked(versions))
            : keccak256(bytes.concat(abi.encode(admission.data), hex"01"));
        return abi.encodeWithSelector(
            I.AgreementRegistry_WrongAdmission.selector,
            keccak256(abi.encode(admission.requesters, data)),
            registry.agreement(id).admissionHash
        );
    }

    function _overOwn(bytes32 id, address who, uint64 quota) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(I.AgreementRegistry_RequesterQuotaSpent.selector, id, who, quota);
    }

    function _overBudget(uint256 already, uint256 amount, uint256 budget) internal view returns (bytes memory) {
        return
            abi.encodeWithSelector(
                I.AgreementRegistry_BudgetSpent.selector, hospitalA, LINEAGE, already, amount, budget
            );
    }
}
