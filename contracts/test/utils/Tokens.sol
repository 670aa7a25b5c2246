// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

/// @notice A token as it should be, with EIP-2612 and EIP-3009. The bad ones below differ from it in one thing each.
contract Coin is ERC20, ERC20Permit, ERC3009 {
    constructor() ERC20("Coin", "COIN") ERC20Permit("Coin") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @dev What an account signs by EIP-3009.
    function authorizationDigest(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce
    ) external view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(abi.encode(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce))
        );
    }

    /// @dev What an account signs by EIP-2612, with its next nonce.
    function permitDigest(address owner, address spender, uint256 value, uint256 deadline)
        external
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"),
                    owner,
                    spender,
                    value,
                    nonces(owner),
                    deadline
                )
            )
        );
    }
}

/// @notice Burns a share of what is transferred, from when that is set.
contract FeeOnTransfer is Coin {
    uint256 public bps;

    function set(uint256 bps_) external {
        bps = bps_;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0) && bps != 0) super._update(to, address(0), value * bps / 10_000);
    }
}

/// @notice As USDT on Ethereum: `transfer` and `transferFrom` return nothing, and an allowance that is not zero cannot be changed
/// to another.
contract NoReturnValue {
    mapping(address account => uint256) public balanceOf;
    mapping(address owner => mapping(address spender => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 value) external {
        require(value == 0 || allowance[msg.sender][spender] == 0, "NoReturnValue: reset it first");
        allowance[msg.sender][spender] = value;
    }

    function transfer(address to, uint256 value) external {
        _move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        allowance[from][msg.sender] -= value;
        _move(from, to, value);
    }

    function _move(address from, address to, uint256 value) private {
        balanceOf[from] -= value;
        balanceOf[to] += value;
    }
}

/// @notice Moves nothing and says so by `false`, from when that is set.
contract FalseReturning is Coin {
    bool public refuses;

    function set(bool refuses_) external {
        refuses = refuses_;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return !refuses && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !refuses && super.transferFrom(from, to, value);
    }
}

/// @notice Stops every transfer, from when that is set.
contract Reverting is Coin {
    error Stopped();

    bool public stopped;

    function set(bool stopped_) external {
        stopped = stopped_;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (stopped) revert Stopped();
        super._update(from, to, value);
    }
}

/// @notice Calls whatever a test tells it before it moves anything, and keeps what came of it.
contract Reentrant is Coin {
    address public target;
    bytes public entry;
    uint256 public calls;
    bool public entered;
    bytes public seen;

    function set(address target_, bytes calldata entry_) external {
        (target, entry) = (target_, entry_);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (target != address(0)) {
            ++calls;
            (entered, seen) = target.call(entry);
        }
        super._update(from, to, value);
    }
}

/// @notice Everybody's balance shrinks at once when a test says so.
contract Rebasing is Coin {
    uint256 public lost;

    /// @param lost_ in basis points of what everybody had at first
    function set(uint256 lost_) external {
        lost = lost_;
    }

    function balanceOf(address account) public view override returns (uint256) {
        return super.balanceOf(account) * (10_000 - lost) / 10_000;
    }

    function _update(address from, address to, uint256 value) internal override {
        // In shares, rounded up: nobody moves more than its shrunken balance.
        super._update(from, to, (value * 10_000 + 9999 - lost) / (10_000 - lost));
    }
}

/// @notice Some may neither send nor receive.
contract Blacklisting is Coin {
    error Blacklisted(address account);

    mapping(address account => bool) public isBlacklisted;

    function set(address account, bool blacklisted) external {
        isBlacklisted[account] = blacklisted;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (isBlacklisted[from]) revert Blacklisted(from);
        if (isBlacklisted[to]) revert Blacklisted(to);
        super._update(from, to, value);
    }
}

/// @notice Moves what it is told to, or nothing at all, and tells of any balance that a test likes.
contract LyingBalance is Coin {
    /// @dev What a transfer adds to what the receiver is said to have, instead of what it moved.
    int256 public gain;
    bool public lies;
    mapping(address account => int256) private _told;

    function set(int256 gain_) external {
        (gain, lies) = (gain_, true);
    }

    function balanceOf(address account) public view override returns (uint256) {
        return uint256(int256(super.balanceOf(account)) + _told[account]);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (lies && from != address(0)) _told[to] += gain;
        else super._update(from, to, value);
    }
}
