// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Deploy} from "../utils/Deploy.sol";
import {Invariant} from "../utils/Invariant.sol";
import {Crowd} from "./Crowd.sol";
import {Outsiders} from "./Outsiders.sol";
import {Parties} from "./Parties.sol";
import {Requesters} from "./Requesters.sol";
import {Workers} from "./Workers.sol";

/// @notice The invariants of README.md, after every move of a crowd that moves at random.
contract InvariantsTest is Invariant, Deploy {
    Crowd private crowd;

    function setUp() public {
        crowd = Crowd(deploy("Crowd.sol:Crowd", ""));
        targetContract(address(crowd));
        targetSelector(address(crowd), _actions());
    }

    function invariant_everythingThatReadmeNumbers() public view {
        crowd.checkTouched();
    }

    function afterInvariant() public view {
        crowd.checkAll();
    }

    /// @dev A crowd that gets nowhere would satisfy all of it. One long run, and what share of each action went through.
    function test_everyActionSucceeds() public {
        bytes4[] memory actions = _actions();
        for (uint256 i; i < 3000; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(i)));
            if (i % 500 == 0) crowd = Crowd(deploy("Crowd.sol:Crowd", ""));
            (bool went, bytes memory said) =
                address(crowd).call(abi.encodeWithSelector(actions[seed % actions.length], seed >> 8));
            if (!went) {
                assembly {
                    revert(add(said, 0x20), mload(said))
                }
            }
            crowd.checkTouched();
            if (i % 500 == 499) crowd.checkAll();
        }
    }

    function _actions() private pure returns (bytes4[] memory list) {
        list = new bytes4[](35);
        uint256 i;
        list[i++] = Parties.activate.selector;
        list[i++] = Parties.consentAhead.selector;
        list[i++] = Parties.suspendOrResume.selector;
        list[i++] = Parties.revoke.selector;
        list[i++] = Parties.drop.selector;
        list[i++] = Parties.publish.selector;
        list[i++] = Parties.withdrawVersion.selector;
        list[i++] = Requesters.request.selector;
        list[i++] = Requesters.requestRelayed.selector;
        list[i++] = Requesters.requestCallingBack.selector;
        list[i++] = Requesters.requestWrongly.selector;
        list[i++] = Requesters.requestAnyVersion.selector;
        list[i++] = Requesters.requestAgain.selector;
        list[i++] = Requesters.cancel.selector;
        list[i++] = Workers.fulfil.selector;
        list[i++] = Workers.fulfilCallingBack.selector;
        list[i++] = Workers.fail.selector;
        list[i++] = Workers.fulfilMany.selector;
        list[i++] = Workers.fulfilBatch.selector;
        list[i++] = Workers.settleWrongly.selector;
        list[i++] = Workers.settleAgain.selector;
        list[i++] = Workers.retryCallback.selector;
        list[i++] = Workers.renew.selector;
        list[i++] = Workers.retire.selector;
        list[i++] = Workers.challenge.selector;
        list[i++] = Outsiders.expire.selector;
        list[i++] = Outsiders.distribute.selector;
        list[i++] = Outsiders.withdraw.selector;
        list[i++] = Outsiders.wait.selector;
        list[i++] = Outsiders.jump.selector;
        list[i++] = Outsiders.upset.selector;
        list[i++] = Outsiders.donate.selector;
        list[i++] = Outsiders.forgeConsent.selector;
        list[i++] = Outsiders.activateAgain.selector;
        list[i++] = Outsiders.meddle.selector;
    }
}
