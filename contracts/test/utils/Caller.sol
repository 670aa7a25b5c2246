// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Result, TaskRequest} from "../../src/Types.sol";
import {IAgreementRegistry} from "../../src/interfaces/IAgreementRegistry.sol";
import {IComputeConsumer} from "../../src/interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "../../src/interfaces/IComputeOracle.sol";

/// @notice A requester whose callback does whatever a test tells it.
contract Caller is IComputeConsumer {
    enum Act {
        Accept,
        Revert,
        RevertMuch,
        BurnAll,
        ReturnMuch,
        Enter,
        Survive
    }

    IComputeOracle private immutable oracle;
    Act public act;
    address public target;
    bytes public entry;
    bool public entered;
    bytes public seen;
    bytes public said;
    uint8 public outcome;
    uint256 public bomb = 1_000_000;
    uint256 public calls;
    uint256 public gasGiven;
    /// @dev What `Survive` could do with the gas it had.
    uint256 public worked;

    constructor(IComputeOracle oracle_) {
        oracle = oracle_;
    }

    receive() external payable {
        if (act == Act.Enter) (entered, seen) = target.call(entry);
    }

    function request(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission, uint256 value)
        external
        returns (bytes32)
    {
        return oracle.request{value: value}(r, admission, "");
    }

    function cancel(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission) external {
        oracle.cancel(r, admission);
    }

    function withdraw(address token, address to) external returns (uint256) {
        return oracle.withdraw(token, to);
    }

    function allow(IERC20 token, uint256 value) external {
        token.approve(address(oracle), value);
    }

    function set(Act act_) external {
        act = act_;
    }

    /// @dev How many bytes `ReturnMuch` and `RevertMuch` answer with.
    function setBomb(uint256 bytes_) external {
        bomb = bytes_;
    }

    /// @dev Calls `target_` from the callback, and from whatever pays this contract.
    function enter(address target_, bytes calldata entry_) external {
        (act, target, entry) = (Act.Enter, target_, entry_);
    }

    function onComputeResult(bytes32, uint8 outcome_, Result calldata, bytes[] calldata publicOutputs) external {
        uint256 given = gasleft();
        if (act == Act.Revert) revert("no");
        if (act == Act.BurnAll) {
            assembly {
                invalid()
            }
        }
        uint256 size = bomb;
        if (act == Act.ReturnMuch) {
            assembly {
                return(0, size)
            }
        }
        if (act == Act.RevertMuch) {
            assembly {
                revert(0, size)
            }
        }
        if (act == Act.Enter) {
            (entered, seen) = target.call(entry);
        }
        if (act == Act.Survive) {
            // It keeps enough to end well, whatever happens in there.
            try this.work{gas: given / 2}() {} catch {}
        }
        ++calls;
        gasGiven = given;
        outcome = outcome_;
        if (publicOutputs.length != 0) said = publicOutputs[0];
    }

    function work() external {
        uint256 from = gasleft();
        while (from - gasleft() < 100_000) {}
        ++worked;
    }
}
