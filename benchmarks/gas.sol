// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {Result} from "contracts/src/Types.sol";
import {IComputeConsumer} from "contracts/src/interfaces/IComputeConsumer.sol";

contract Token is ERC20("Gas", "GAS") {
    constructor(address holder) {
        _mint(holder, 1e30);
    }
}

/// @notice Checks who calls, reads its one number and tells of it: the least that a consumer does.
contract Consumer is IComputeConsumer {
    address private immutable _oracle;

    event Answered(bytes32 indexed taskId, uint256 value);

    constructor(address oracle) {
        _oracle = oracle;
    }

    function onComputeResult(bytes32 taskId, uint8, Result calldata, bytes[] calldata publicOutputs) external {
        require(msg.sender == _oracle);
        emit Answered(taskId, abi.decode(publicOutputs[0], (uint256)));
    }
}
