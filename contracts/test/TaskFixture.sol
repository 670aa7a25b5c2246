// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Agreement, Batch, Out, Output, Result, TaskRequest} from "../src/Types.sol";
import {IComputeOracle} from "../src/interfaces/IComputeOracle.sol";
import {Confirmation, OutputKind} from "../src/libraries/Constants.sol";
import {Fixture} from "./Fixture.sol";
import {Caller} from "./utils/Caller.sol";
import {Coin} from "./utils/Tokens.sol";

/// @title Tasks in numbers, in tokens, with public outputs and with callbacks
abstract contract TaskFixture is Fixture {
    /// @dev `Out.recipientsDigest` of an output that anyone may read.
    bytes32 internal constant PUBLIC = 0x1444d8b666d44746ea4ea945b60974c533b3fc547b20511a2f81f9ebdc27a89d;
    address internal constant NATIVE = address(0);

    // Many

    function _roomy(uint64 quota) internal view returns (Agreement memory a) {
        a = _agreement();
        (a.access.quota, a.access.quotaPerRequester) = (quota, quota);
    }

    function _requests(bytes32 agreementId, uint256 count) internal returns (TaskRequest[] memory rs) {
        rs = new TaskRequest[](count);
        for (uint256 i; i < count; ++i) {
            rs[i] = _taskRequest(agreementId);
            rs[i].nonce = bytes32(i);
            _request(rs[i]);
        }
    }

    function _fulfilments(TaskRequest[] memory rs) internal view returns (IComputeOracle.Fulfilment[] memory list) {
        list = new IComputeOracle.Fulfilment[](rs.length);
        for (uint256 i; i < rs.length; ++i) {
            list[i] = _fulfilment(rs[i], _result(rs[i]));
        }
    }

    function _batch(TaskRequest[] memory rs) internal view returns (Batch memory b) {
        b.agreementId = rs[0].agreementId;
        b.payee = payee;
        b.anchor = ANCHOR;
        b.tasks = new bytes32[](rs.length);
        b.results = new bytes32[](rs.length);
        for (uint256 i; i < rs.length; ++i) {
            b.tasks[i] = oracle.taskIdOf(rs[i]);
            b.results[i] = oracle.resultDigestOf(_result(rs[i]));
        }
    }

    function _signBatch(Batch memory b) internal view returns (bytes memory) {
        return sign(enclaveKey, oracle.batchDigestOf(b));
    }

    // Tokens

    function _token(string memory name) internal returns (address) {
        return deploy(string.concat("Tokens.sol:", name), "");
    }

    /// @dev An agreement with its fee in `token`, of which the requester has enough and allows it.
    function _inToken(address token) internal returns (Agreement memory a) {
        a = _agreement();
        a.price.token = token;
        Coin(token).mint(requester, 100 ether);
        // One of them returns nothing from `approve`, which the compiler would not take.
        vm.prank(requester);
        (bool allowed,) = token.call(abi.encodeCall(Coin(token).approve, (address(oracle), 100 ether)));
        assertTrue(allowed);
    }

    function _requestInToken(TaskRequest memory r) internal returns (bytes32 taskId) {
        vm.prank(r.requester);
        return oracle.request(r, _anyone(), "");
    }

    // Public outputs

    /// @dev An agreement whose `count` outputs are all public.
    function _open(uint256 count) internal view returns (Agreement memory a) {
        a = _agreement();
        a.outputs = new Output[](count);
        for (uint256 i; i < count; ++i) {
            a.outputs[i] = _output(string(abi.encodePacked("value ", bytes1(uint8(0x61 + i)))));
            a.outputs[i].kind = OutputKind.ABI_VALUES;
            a.outputs[i].recipients = new bytes32[](0);
        }
        a.keys.confirmation = Confirmation.FINALIZED;
        a.keys.confirmBlocks = 0;
    }

    function _publicOut(bytes memory content) internal pure returns (Out memory) {
        return Out({
            name: "value",
            kind: OutputKind.ABI_VALUES,
            recipientsDigest: PUBLIC,
            length: uint64(content.length),
            digest: sha256(content)
        });
    }

    /// @dev A success with these outputs.
    function _told(TaskRequest memory r, bytes[] memory contents)
        internal
        view
        returns (IComputeOracle.Fulfilment memory f)
    {
        Result memory result = _result(r);
        result.outputs = new Out[](contents.length);
        for (uint256 i; i < contents.length; ++i) {
            result.outputs[i] = _publicOut(contents[i]);
        }
        f = _fulfilment(r, result);
        f.publicOutputs = contents;
    }

    function _bytes(bytes memory content) internal pure returns (bytes[] memory list) {
        list = new bytes[](1);
        list[0] = content;
    }

    // Callbacks

    function _caller() internal returns (Caller caller) {
        caller = new Caller(oracle);
        vm.deal(address(caller), 100 ether);
    }

    /// @dev A request of the caller's own, which it is called back for.
    function _callingBack(bytes32 agreementId, Caller caller, uint32 callbackGas)
        internal
        view
        returns (TaskRequest memory r)
    {
        r = _taskRequest(agreementId);
        r.requester = address(caller);
        r.callback = address(caller);
        r.callbackGas = callbackGas;
    }

    // Money

    function _balance(address account) internal view returns (uint256) {
        return oracle.balanceOf(NATIVE, account);
    }

    /// @dev The part of one fee that goes to the shares of `_agreement`'s price.
    function _shared(uint256 fee) internal pure returns (uint256) {
        return fee * 5500 / 10_000;
    }
}
