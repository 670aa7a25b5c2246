// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IComputeOracle} from "../interfaces/IComputeOracle.sol";
import {IERC3009} from "../interfaces/IERC3009.sol";
import {PaymentKind} from "./Constants.sol";

/// @title Money in and out
library Payments {
    using SafeERC20 for IERC20;

    /// @notice Takes exactly `fee` from `payer`. A token that hands over less, or nothing, is refused by name.
    function pull(address token, address payer, uint256 fee, bytes32 taskId, IComputeOracle.Payment memory payment)
        internal
    {
        // Nothing of the oracle's can be entered meanwhile (nonReentrant), so only a payment moves it.
        uint256 before = IERC20(token).balanceOf(address(this));
        if (payment.kind == PaymentKind.AUTHORIZATION) {
            // Only this contract can use it, and only for this task: its nonce is the task's id.
            IERC3009(token)
                .receiveWithAuthorization(
                    payer,
                    address(this),
                    fee,
                    payment.validAfter,
                    payment.deadline,
                    taskId,
                    payment.v,
                    payment.r,
                    payment.s
                );
        } else {
            if (payment.kind == PaymentKind.PERMIT) {
                // Whoever was faster with the same permit did no harm: what counts is the allowance.
                try IERC20Permit(token)
                    .permit(payer, address(this), payment.value, payment.deadline, payment.v, payment.r, payment.s) {}
                    catch {}
            } else if (payment.kind != PaymentKind.ALLOWANCE) {
                revert IComputeOracle.ComputeOracle_BadPaymentKind(payment.kind);
            }
            // The payer asked for this task, by its own call or its signature over the request.
            // slither-disable-next-line arbitrary-send-erc20-permit
            IERC20(token).safeTransferFrom(payer, address(this), fee);
        }
        uint256 left = IERC20(token).balanceOf(address(this));
        // A balance that shrank is refused by name, too.
        uint256 got = left < before ? 0 : left - before;
        // slither-disable-next-line reentrancy-balance
        if (got != fee) revert IComputeOracle.ComputeOracle_WrongReceived(token, got, fee);
    }

    function pay(address token, address to, uint256 amount) internal {
        // Nobody's: the native coin would be gone.
        if (to == address(0)) revert IComputeOracle.ComputeOracle_WithdrawalFailed(to, amount);
        if (token != address(0)) {
            IERC20(token).safeTransfer(to, amount);
            return;
        }
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert IComputeOracle.ComputeOracle_WithdrawalFailed(to, amount);
    }
}
