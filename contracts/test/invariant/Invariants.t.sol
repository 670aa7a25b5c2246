// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Deploy} from "../utils/Deploy.sol";
import {Invariant} from "../utils/Invariant.sol";
import {Crowd} from "./Crowd.sol";

/// @notice The invariants of README.md, after every move of a crowd that moves at random.
contract InvariantsTest is Invariant, Deploy {
    /// @dev forge prints it.
    event log_named_string(string key, string val);

    /// @dev As many as the gas of one test is enough for.
    uint256 private constant STEPS = 900;

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

    /// @dev A crowd that gets nowhere would satisfy all of it. With `-vv`: how many of each move went through, of how many tried.
    function test_everyMoveSucceeds() public {
        bytes4[] memory actions = _actions();
        string[21] memory moves = _moves();
        uint256[2][21] memory counts;
        for (uint256 i; i < STEPS; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(i)));
            (bool went, bytes memory said) =
                address(crowd).call(abi.encodeWithSelector(actions[seed % actions.length], seed >> 8));
            if (!went) {
                assembly ("memory-safe") {
                    revert(add(said, 0x20), mload(said))
                }
            }
            crowd.checkTouched();
            if (i % 300 != 299) continue;
            crowd.checkAll();
            for (uint256 j; j < moves.length; ++j) {
                counts[j][0] += crowd.done(moves[j]);
                counts[j][1] += crowd.tried(moves[j]);
            }
            crowd = Crowd(deploy("Crowd.sol:Crowd", ""));
        }
        uint256 done;
        uint256 tried;
        for (uint256 i; i < moves.length; ++i) {
            string memory share = string.concat(vm.toString(counts[i][0]), " of ", vm.toString(counts[i][1]));
            emit log_named_string(moves[i], share);
            assertGt(counts[i][0], 0, moves[i]);
            done += counts[i][0];
            tried += counts[i][1];
        }
        assertGt(done * 2, tried, "most moves fail");
    }

    function _actions() private pure returns (bytes4[] memory list) {
        string[36] memory names = [
            "activate",
            "consentAhead",
            "suspendOrResume",
            "revoke",
            "drop",
            "publish",
            "withdrawVersion",
            "request",
            "requestRelayed",
            "requestCallingBack",
            "requestWrongly",
            "requestAnyVersion",
            "requestAgain",
            "cancel",
            "fulfil",
            "fulfilCallingBack",
            "fail",
            "fulfilMany",
            "fulfilBatch",
            "settleWrongly",
            "settleAgain",
            "settleAtTheEnd",
            "retryCallback",
            "renew",
            "retire",
            "challenge",
            "expire",
            "distribute",
            "withdraw",
            "wait",
            "jump",
            "upset",
            "donate",
            "forgeConsent",
            "activateAgain",
            "meddle"
        ];
        list = new bytes4[](names.length);
        for (uint256 i; i < names.length; ++i) {
            list[i] = bytes4(keccak256(bytes(string.concat(names[i], "(uint256)"))));
        }
    }

    function _moves() private pure returns (string[21] memory) {
        return [
            "activate",
            "consent ahead",
            "suspend",
            "resume",
            "revoke",
            "drop",
            "withdraw a version",
            "request",
            "requestFor",
            "cancel",
            "fulfil",
            "fulfil a failure",
            "fulfilMany",
            "fulfilBatch",
            "retryCallback",
            "renew",
            "retire",
            "challenge",
            "expire",
            "distribute",
            "withdraw"
        ];
    }
}
