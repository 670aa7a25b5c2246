// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Result, TaskRequest} from "../../contracts/src/Types.sol";
import {IAgreementRegistry} from "../../contracts/src/interfaces/IAgreementRegistry.sol";
import {IComputeConsumer} from "../../contracts/src/interfaces/IComputeConsumer.sol";
import {IComputeOracle} from "../../contracts/src/interfaces/IComputeOracle.sol";

/// @dev A token with both ways to approve by signature, EIP-2612 and EIP-3009.
contract Coin is ERC20Permit {
    bytes32 private constant RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    mapping(address => mapping(bytes32 => bool)) private _used;

    constructor() ERC20("Coin", "COIN") ERC20Permit("Coin") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        require(msg.sender == to && block.timestamp > validAfter && block.timestamp < validBefore && !_used[from][nonce]);
        bytes32 digest =
            _hashTypedDataV4(keccak256(abi.encode(RECEIVE, from, to, value, validAfter, validBefore, nonce)));
        require(ECDSA.recover(digest, v, r, s) == from);
        _used[from][nonce] = true;
        _transfer(from, to, value);
    }
}

/// @dev A contract that asks and is called back; it fails while it is told to.
contract Caller is IComputeConsumer {
    IComputeOracle private immutable _oracle;
    bool public failing;
    bytes32 public answered;
    bytes public answer;

    constructor(IComputeOracle oracle) {
        _oracle = oracle;
    }

    function ask(TaskRequest calldata r, IAgreementRegistry.Admission calldata admission) external payable {
        _oracle.request{value: msg.value}(r, admission, "");
    }

    function fail(bool on) external {
        failing = on;
    }

    function onComputeResult(bytes32 taskId, uint8, Result calldata, bytes[] calldata publicOutputs) external {
        require(msg.sender == address(_oracle) && !failing);
        answered = taskId;
        if (publicOutputs.length != 0) answer = publicOutputs[0];
    }

    function withdraw(address token) external {
        _oracle.withdraw(token, address(this));
    }

    receive() external payable {}
}
