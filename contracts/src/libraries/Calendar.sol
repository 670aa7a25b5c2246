// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Dates of the Gregorian calendar in unix seconds
library Calendar {
    /// @notice Checks fourteen decimal digits that stand one in each byte, zero being zero.
    /// @return valid whether all are at most nine
    /// @return values seven numbers of two digits, one in every second byte
    function digits(uint256 word) internal pure returns (bool valid, uint256 values) {
        unchecked {
            // Adding 0x76 sets the top bit of a byte above nine; a byte with the top bit set is no digit to begin with.
            valid =
                (word + 0x7676767676767676767676767676 | word) & (0x8080808080808080808080808080 | ~uint256(0) << 112)
                    == 0;
            values = (word >> 8 & 0x00ff00ff00ff00ff00ff00ff00ff) * 10 + (word & 0x00ff00ff00ff00ff00ff00ff00ff);
        }
    }

    /// @param values century, year in it, month, day, hour, minute, second: one in every second byte
    /// @return unix seconds, zero for what is no date from 1970-01-01T00:00:01Z on
    function unix(uint256 values) internal pure returns (uint256) {
        unchecked {
            uint256 year = (values >> 96) * 100 + (values >> 80 & 0xff);
            uint256 month = values >> 64 & 0xff;
            uint256 day = values >> 48 & 0xff;
            uint256 hour = values >> 32 & 0xff;
            uint256 minute = values >> 16 & 0xff;
            uint256 second = values & 0xff;
            if (year < 1970 || month == 0 || month > 12 || day == 0 || hour > 23 || minute > 59 || second > 59) {
                return 0;
            }
            if (day > daysIn(year, month)) return 0;
            // Years that start in March, so that a leap day comes last.
            uint256 y = month > 2 ? year : year - 1;
            uint256 days_ = 365 * y + y / 4 - y / 100 + y / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 719_469;
            return days_ * 1 days + hour * 1 hours + minute * 1 minutes + second;
        }
    }

    function daysIn(uint256 year, uint256 month) internal pure returns (uint256) {
        unchecked {
            if (month == 2) return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
            return 30 + (month + month / 8) % 2;
        }
    }
}
