// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

abstract contract Minted is ERC20 {
    constructor(address holder) ERC20("Test Dollar", "TUSD") {
        _mint(holder, 1e12);
    }

    function decimals() public pure virtual override returns (uint8) {
        return 6;
    }
}

contract Plain is Minted {
    constructor(address holder) Minted(holder) {}
}

contract Permits is Minted, ERC20Permit {
    constructor(address holder) Minted(holder) ERC20Permit("Test Dollar") {}

    function decimals() public pure override(Minted, ERC20) returns (uint8) {
        return 6;
    }
}

contract Authorizes is Minted, ERC3009 {
    constructor(address holder) Minted(holder) EIP712("Test Dollar", "1") {}

    function decimals() public pure override(Minted, ERC20) returns (uint8) {
        return 6;
    }
}

/// @notice Says the domain of another token: what is signed for it would be signed for that one.
contract Posing is Minted {
    Permits private immutable _other;

    constructor(address holder, Permits other) Minted(holder) {
        _other = other;
    }

    function nonces(address owner) external view returns (uint256) {
        return _other.nonces(owner);
    }

    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _other.DOMAIN_SEPARATOR();
    }

    function eip712Domain()
        external
        view
        returns (bytes1, string memory, string memory, uint256, address, bytes32, uint256[] memory)
    {
        return _other.eip712Domain();
    }
}

/// @notice A wallet that is a contract (ERC-1271): it has signed what its owner says it has.
contract Signs {
    address private immutable _owner = msg.sender;
    bytes32 private _signed;

    function sign(bytes32 digest) external {
        require(msg.sender == _owner);
        _signed = digest;
    }

    function isValidSignature(bytes32 digest, bytes calldata) external view returns (bytes4) {
        return digest == _signed ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}
