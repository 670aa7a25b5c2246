// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IDcapCollateral} from "../../src/interfaces/IDcapCollateral.sol";
import {TcbStatus, TeeKind} from "../../src/libraries/Constants.sol";
import {IntelJson} from "../../src/libraries/IntelJson.sol";
import {Test} from "../utils/Test.sol";
import {Text} from "../utils/Text.sol";

contract IntelJsonHarness {
    function tcbInfo(bytes memory json) external pure returns (IDcapCollateral.TcbInfo memory) {
        (uint256 p, uint256 end) = _in(json);
        return IntelJson.tcbInfo(p, end);
    }

    function qeIdentity(bytes memory json) external pure returns (IDcapCollateral.QeIdentity memory) {
        (uint256 p, uint256 end) = _in(json);
        return IntelJson.qeIdentity(p, end);
    }

    function _in(bytes memory json) private pure returns (uint256 p, uint256 end) {
        assembly ("memory-safe") {
            p := add(json, 0x20)
            end := add(p, mload(json))
        }
    }
}

/// @notice TCB info and QE identities that are valid as written here; a test changes one thing.
/// @dev Recorded documents of Intel go through the contract in tests/integration/test_dcap_collateral.py.
contract IntelJsonTest is Test {
    using Text for string;

    IntelJsonHarness private parser = new IntelJsonHarness();

    string private constant ZEROS =
        '{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0}';
    string private constant MR_SIGNER =
        "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";
    uint40 private constant ISSUED = 1_710_288_000;
    uint40 private constant NEXT = 1_712_966_399;

    function sgx() private pure returns (string memory) {
        return string.concat(
            '{"id":"SGX","version":3,"issueDate":"2024-03-13T00:00:00Z","nextUpdate":"2024-04-12T23:59:59Z",',
            '"fmspc":"00A067110000","pceId":"0000","tcbType":0,"tcbEvaluationDataNumber":17,"tcbLevels":[',
            '{"tcb":{"sgxtcbcomponents":[{"svn":11,"category":"BIOS","type":"Early Microcode Update"},{"svn":255},',
            ZEROS,
            '],"pcesvn":13},"tcbDate":"2023-08-09T00:00:00Z","tcbStatus":"UpToDate"},',
            '{"tcb":{"sgxtcbcomponents":[{"svn":11,"type":"late"},{"svn":9},',
            ZEROS,
            '],"pcesvn":13},"tcbDate":"2022-11-09T00:00:00Z","tcbStatus":"OutOfDate","advisoryIDs":["INTEL-SA-00614","INTEL-SA-00615"]},',
            '{"tcb":{"sgxtcbcomponents":[{"svn":11},{"svn":9},',
            ZEROS,
            '],"pcesvn":5},"tcbDate":"2018-01-04T00:00:00Z","tcbStatus":"Revoked"}]}'
        );
    }

    function tdx() private pure returns (string memory) {
        return string.concat(
            '{"id":"TDX","version":3,"issueDate":"2024-03-13T00:00:00Z","nextUpdate":"2024-04-12T23:59:59Z",',
            '"fmspc":"00806F050000","pceId":"0001","tcbType":0,"tcbEvaluationDataNumber":4294967295,"tdxModule":{"mrsigner":"',
            MR_SIGNER,
            '","attributes":"0102030405060708","attributesMask":"FFFFFFFFFFFFFFFF"},"tdxModuleIdentities":[{"id":"TDX_03","mrsigner":"',
            MR_SIGNER,
            '","attributes":"0000000000000000","attributesMask":"FFFFFFFFFFFFFFFF","tcbLevels":[',
            '{"tcb":{"isvsvn":5},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"UpToDate"},',
            '{"tcb":{"isvsvn":2},"tcbDate":"2023-03-13T00:00:00Z","tcbStatus":"OutOfDate"}]},{"id":"TDX_1F","mrsigner":"',
            MR_SIGNER,
            '","attributes":"0000000000000000","attributesMask":"FFFFFFFFFFFFFFFF","tcbLevels":[',
            '{"tcb":{"isvsvn":255},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"UpToDate","advisoryIDs":["INTEL-SA-1"]}]}],"tcbLevels":[',
            tdxLevel("5", "3"),
            ",",
            tdxLevel("4", "9"),
            "]}"
        );
    }

    function tdxLevel(string memory first, string memory tdxFirst) private pure returns (string memory) {
        return string.concat(
            '{"tcb":{"sgxtcbcomponents":[{"svn":7},{"svn":7},',
            ZEROS,
            '],"pcesvn":11,"tdxtcbcomponents":[{"svn":',
            first,
            '},{"svn":',
            tdxFirst,
            "},",
            ZEROS,
            ']},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"UpToDate"}'
        );
    }

    function qe() private pure returns (string memory) {
        return string.concat(
            '{"id":"QE","version":2,"issueDate":"2024-03-13T00:00:00Z","nextUpdate":"2024-04-12T23:59:59Z",',
            '"tcbEvaluationDataNumber":17,"miscselect":"00000001","miscselectMask":"FFFFFFFF",',
            '"attributes":"11000000000000000000000000000000","attributesMask":"FBFFFFFFFFFFFFFF0000000000000000",',
            '"mrsigner":"8C4F5775D796503E96137F77C68A829A0056AC8DED70140B081B094490C57BFF","isvprodid":1,"tcbLevels":[',
            '{"tcb":{"isvsvn":8},"tcbDate":"2023-08-09T00:00:00Z","tcbStatus":"UpToDate"},',
            '{"tcb":{"isvsvn":6},"tcbDate":"2021-11-10T00:00:00Z","tcbStatus":"OutOfDate","advisoryIDs":["INTEL-SA-00615"]}]}'
        );
    }

    function test_readsSgxTcbInfo() public view {
        IDcapCollateral.TcbInfo memory info = parser.tcbInfo(bytes(sgx()));
        assertEq(info.tee, TeeKind.SGX);
        assertEq(bytes32(info.fmspc), bytes32(bytes6(0x00a067110000)));
        assertEq(bytes32(info.pceId), 0);
        assertEq(info.evaluation, 17);
        assertEq(info.issuedAt, ISSUED);
        assertEq(info.nextUpdate, NEXT);
        assertEq(info.changedAt, 1_691_539_200);
        assertEq(info.modules, 0);
        bytes32 chain = keccak256(
            abi.encode(bytes32(hex"0b09"), uint256(5), TcbStatus.REVOKED, uint256(1_515_024_000), bytes32(0))
        );
        chain = keccak256(
            abi.encode(bytes32(hex"0b09"), uint256(13), TcbStatus.OUT_OF_DATE, uint256(1_667_952_000), chain)
        );
        chain =
            keccak256(abi.encode(bytes32(hex"0bff"), uint256(13), TcbStatus.UP_TO_DATE, uint256(1_691_539_200), chain));
        assertEq(info.levels, chain);
    }

    function test_readsTdxTcbInfo() public view {
        IDcapCollateral.TcbInfo memory info = parser.tcbInfo(bytes(tdx()));
        assertEq(info.tee, TeeKind.TDX);
        assertEq(info.evaluation, type(uint32).max);
        assertEq(bytes32(info.pceId), bytes32(bytes2(0x0001)));
        uint256[] memory levels = new uint256[](2);
        levels[0] = 5 << 48 | uint256(TcbStatus.UP_TO_DATE) << 40 | ISSUED;
        levels[1] = 2 << 48 | uint256(TcbStatus.OUT_OF_DATE) << 40 | 1_678_665_600;
        uint256[] memory last = new uint256[](1);
        last[0] = 255 << 48 | uint256(TcbStatus.UP_TO_DATE) << 40 | ISSUED;
        assertEq(
            info.modules,
            keccak256(
                abi.encodePacked(
                    moduleDigest(0, 0x0102030405060708, new uint256[](0)),
                    moduleDigest(3, 0, levels),
                    moduleDigest(31, 0, last)
                )
            )
        );
        bytes32 chain =
            keccak256(abi.encode(levelOf(4, 9), uint256(11), TcbStatus.UP_TO_DATE, uint256(ISSUED), bytes32(0)));
        chain = keccak256(abi.encode(levelOf(5, 3), uint256(11), TcbStatus.UP_TO_DATE, uint256(ISSUED), chain));
        assertEq(info.levels, chain);
    }

    function test_readsQeIdentity() public view {
        IDcapCollateral.QeIdentity memory found = parser.qeIdentity(bytes(qe()));
        assertEq(found.tee, TeeKind.SGX);
        assertEq(found.evaluation, 17);
        assertEq(found.issuedAt, ISSUED);
        assertEq(found.nextUpdate, NEXT);
        assertEq(bytes32(found.miscSelect), bytes32(bytes4(0x00000001)));
        assertEq(bytes32(found.miscSelectMask), bytes32(bytes4(0xffffffff)));
        assertEq(bytes32(found.attributes), bytes32(hex"11"));
        assertEq(bytes32(found.attributesMask), bytes32(hex"fbffffffffffffff"));
        assertEq(found.mrSigner, 0x8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff);
        assertEq(found.isvProdId, 1);
        assertEq(found.levels.length, 2);
        assertEq(found.levels[0], 8 << 48 | uint256(TcbStatus.UP_TO_DATE) << 40 | 1_691_539_200);
        assertEq(found.levels[1], 6 << 48 | uint256(TcbStatus.OUT_OF_DATE) << 40 | 1_636_502_400);
    }

    function test_theTdxQuotingEnclaveHasItsNameAndTwoVersions() public view {
        string memory td = qe().replace('"id":"QE"', '"id":"TD_QE"');
        assertEq(parser.qeIdentity(bytes(td)).tee, TeeKind.TDX);
        assertEq(parser.qeIdentity(bytes(td.replace('"version":2', '"version":3'))).tee, TeeKind.TDX);
    }

    function test_moduleIdentitiesMayBeMissing() public view {
        string memory document = tdx();
        string memory without =
            string.concat(document.before(',"tdxModuleIdentities"'), ',"tcbLevels":[', tdxLevel("5", "3"), "]}");
        assertEq(
            parser.tcbInfo(bytes(without)).modules,
            keccak256(abi.encodePacked(moduleDigest(0, 0x0102030405060708, new uint256[](0))))
        );
    }

    function test_everyStatusHasItsNumber() public view {
        string[7] memory names = [
            "UpToDate",
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
            "Revoked"
        ];
        for (uint256 i; i < names.length; ++i) {
            string memory document = qe().replace('"UpToDate"', string.concat('"', names[i], '"'));
            assertEq(parser.qeIdentity(bytes(document)).levels[0] >> 40 & 0xff, i + 1, names[i]);
        }
    }

    function test_hexadecimalMayBeOfEitherCase() public view {
        string memory document = sgx().replace("00A067110000", "00a067110000");
        assertEq(bytes32(parser.tcbInfo(bytes(document)).fmspc), bytes32(bytes6(0x00a067110000)));
    }

    // Refusals by name

    function test_refusesAnotherKindOrVersion() public {
        refusesTcb(sgx().replace('"SGX"', '"ABC"'), 'SGX"');
        refusesUnexpected(sgx().replace('"version":3', '"version":2'));
        refusesUnexpected(sgx().replace('"tcbType":0', '"tcbType":1'));
        refusesQe(qe().replace('"id":"QE"', '"id":"QVE"'));
        refusesQe(qe().replace('"version":2', '"version":3'));
        refusesQe(qe().replace('"id":"QE"', '"id":"TD_QE"').replace('"version":2', '"version":4'));
    }

    function test_refusesTdxPartsInSgxAndTheirLackInTdx() public {
        refusesUnexpected(sgx().replace('"id":"SGX"', '"id":"TDX"'));
        refusesUnexpected(tdx().replace('"id":"TDX"', '"id":"SGX"'));
    }

    function test_refusesAnotherOrderOrForm() public {
        refusesUnexpected(sgx().replace('"pceId":"0000","tcbType":0', '"tcbType":0,"pceId":"0000"'));
        refusesUnexpected(sgx().replace('"version":3', '"version": 3'));
        refusesUnexpected(sgx().replace('"pcesvn":13}', '"pcesvn":13,"x":1}'));
        refusesUnexpected(sgx().replace('"category":"BIOS","type":', '"type":"","category":'));
        refusesUnexpected(sgx().replace('"advisoryIDs":["INTEL-SA-00614",', '"advisoryIDs":[7,'));
        refusesUnexpected(sgx().replace('"tcbDate"', '"date"'));
        refusesUnexpected(sgx().replace('"tcbLevels":[{', '"tcbLevels":[]{'));
        refusesUnexpected(sgx().replace('"tcbLevels":[', '"tcbLevels":[],"tcbLevels":['));
        refusesUnexpected(sgx().replace('{"svn":255},', '{"sun":255},'));
        refusesUnexpected(sgx().replace('{"svn":255},', '{"svn":255];'));
        refusesUnexpected(sgx().replace('{"svn":255},', '{"svn":255}]'));
        refusesQe(qe().replace('"mrsigner"', '"mrenclave"'));
        refusesUnexpected(tdx().replace('"tdxModule":{', '"tdxModule":{"id":"","'));
    }

    function test_refusesMoreOrLessThanSixteenComponents() public {
        refusesUnexpected(sgx().replace('{"svn":255},', ""));
        refusesUnexpected(sgx().replace('{"svn":255},', '{"svn":255},{"svn":0},'));
    }

    function test_refusesWhatFollowsTheDocument() public {
        vm.expectRevert(IntelJson.IntelJson_TrailingBytes.selector);
        parser.tcbInfo(bytes(string.concat(sgx(), " ")));
        vm.expectRevert(IntelJson.IntelJson_TrailingBytes.selector);
        parser.qeIdentity(bytes(string.concat(qe(), "}")));
    }

    function test_refusesEveryCutDocument(uint256 length) public {
        bytes memory document = bytes(tdx());
        length = bound(length, 0, document.length - 1);
        assembly ("memory-safe") {
            mstore(document, length)
        }
        vm.expectRevert();
        parser.tcbInfo(document);
    }

    function test_refusesNumbersThatAreNone() public {
        refusesWith(sgx().replace('"pcesvn":13', '"pcesvn":'), IntelJson.IntelJson_BadNumber.selector);
        refusesWith(sgx().replace('"pcesvn":13', '"pcesvn":-1'), IntelJson.IntelJson_BadNumber.selector);
        refusesWith(sgx().replace('"pcesvn":13', '"pcesvn":013'), IntelJson.IntelJson_BadNumber.selector);
        refusesWith(sgx().replace('{"svn":11,', '{"svn":011,'), IntelJson.IntelJson_BadNumber.selector);
        refusesWith(sgx().replace('{"svn":11,', '{"svn":,'), IntelJson.IntelJson_BadNumber.selector);
        refusesUnexpected(sgx().replace('{"svn":11,', '{"svn":1.0,'));
        refusesUnexpected(sgx().replace('"pcesvn":13', '"pcesvn":1e1'));
    }

    function test_refusesANumberInQuotes() public {
        vm.expectPartialRevert(IntelJson.IntelJson_BadNumber.selector);
        parser.qeIdentity(bytes(qe().replace('"isvprodid":1', '"isvprodid":"1"')));
    }

    function test_refusesNumbersOutOfBounds() public {
        refusesTooLarge(sgx().replace('{"svn":255}', '{"svn":256}'), 256, 255);
        refusesTooLarge(sgx().replace('"pcesvn":13', '"pcesvn":65536'), 65_536, 65_535);
        refusesTooLarge(sgx().replace("Number\":17", "Number\":4294967296"), 4_294_967_296, 4_294_967_295);
        refusesTooLarge(sgx().replace("Number\":17", "Number\":99999999999"), 99_999_999_999, 4_294_967_295);
        refusesTooLarge(sgx().replace("Number\":17", "Number\":100000000017"), 10_000_000_001, 4_294_967_295);
        refusesTooLarge(tdx().replace('"isvsvn":255', '"isvsvn":256'), 256, 255);
        vm.expectRevert(abi.encodeWithSelector(IntelJson.IntelJson_TooLarge.selector, 65_536, 65_535));
        parser.qeIdentity(bytes(qe().replace('"isvsvn":8', '"isvsvn":65536')));
        vm.expectRevert(abi.encodeWithSelector(IntelJson.IntelJson_TooLarge.selector, 65_536, 65_535));
        parser.qeIdentity(bytes(qe().replace('"isvprodid":1', '"isvprodid":65536')));
    }

    function test_refusesWhatIsNotHexadecimal() public {
        bytes memory bad = bytes("/:@G`g\x10\x1a!Z~\x7f");
        for (uint256 i; i < bad.length; ++i) {
            string memory digit = string(abi.encodePacked(bad[i]));
            refusesWith(
                sgx().replace("00A067110000", string.concat("0", digit, "A067110000")),
                IntelJson.IntelJson_BadHex.selector
            );
            vm.expectPartialRevert(IntelJson.IntelJson_BadHex.selector);
            parser.qeIdentity(bytes(qe().replace("8C4F", string.concat("8C4", digit))));
        }
        refusesWith(sgx().replace('"pceId":"0000"', '"pceId":"000"'), IntelJson.IntelJson_BadHex.selector);
        refusesUnexpected(sgx().replace('"pceId":"0000"', '"pceId":"00000"'));
    }

    function test_refusesWhatIsNoDate() public {
        string[14] memory dates = [
            "2024-13-13T00:00:00Z",
            "2024-00-13T00:00:00Z",
            "2024-03-00T00:00:00Z",
            "2024-03-32T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "2024-03-13T24:00:00Z",
            "2024-03-13T00:60:00Z",
            "2024-03-13T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "2024-03-13 00:00:00Z",
            "2024-03-13T00:00:00z",
            "2024-0a-13T00:00:00Z"
        ];
        for (uint256 i; i < dates.length; ++i) {
            refusesWith(
                sgx().replace('Date":"2024-03-13T00:00:00Z"', string.concat('Date":"', dates[i], '"')),
                IntelJson.IntelJson_BadDate.selector
            );
        }
        refusesWith(
            sgx().replace('Date":"2024-03-13T00:00:00Z"', 'Date":"2024-03-13T00:00:00.0Z"'),
            IntelJson.IntelJson_BadDate.selector
        );
    }

    function test_refusesAStatusThatIntelDoesNotWrite() public {
        refusesWith(sgx().replace('"UpToDate"', '"uptodate"'), IntelJson.IntelJson_UnknownStatus.selector);
        refusesWith(sgx().replace('"UpToDate"', '"TDRelaunchAdvised"'), IntelJson.IntelJson_UnknownStatus.selector);
        refusesWith(sgx().replace('"UpToDate"', '""'), IntelJson.IntelJson_UnknownStatus.selector);
    }

    function test_refusesLevelsThatDoNotDescend() public {
        // The third level differs from the second in PCESVN only.
        refusesNotDescending(sgx().replace('"pcesvn":5', '"pcesvn":13'), 2);
        refusesNotDescending(sgx().replace('"pcesvn":5', '"pcesvn":14'), 2);
        refusesNotDescending(sgx().replace('{"svn":255}', '{"svn":8}'), 1);
        // TDX components count last.
        refusesNotDescending(tdx().replace(tdxLevel("4", "9"), tdxLevel("5", "3")), 1);
        refusesNotDescending(tdx().replace(tdxLevel("4", "9"), tdxLevel("6", "0")), 1);
        refusesNotDescending(tdx().replace('"isvsvn":2}', '"isvsvn":5}'), 1);
        refusesNotDescending(tdx().replace('"isvsvn":2}', '"isvsvn":6}'), 1);
        vm.expectRevert(abi.encodeWithSelector(IntelJson.IntelJson_NotDescending.selector, 1));
        parser.qeIdentity(bytes(qe().replace('"isvsvn":6', '"isvsvn":8')));
    }

    function test_refusesAModuleTwiceOrWithoutANumber() public {
        refusesDuplicate(tdx().replace("TDX_1F", "TDX_03"), 3);
        // Version 0 is `tdxModule`.
        refusesDuplicate(tdx().replace("TDX_1F", "TDX_00"), 0);
        refusesWith(tdx().replace("TDX_1F", "TDX_1f"), IntelJson.IntelJson_BadHex.selector);
        refusesWith(tdx().replace("TDX_1F", "TDX_a1"), IntelJson.IntelJson_BadHex.selector);
        refusesWith(tdx().replace("TDX_1F", "TDX_1"), IntelJson.IntelJson_BadHex.selector);
        refusesUnexpected(tdx().replace("TDX_1F", "TDY_1F"));
    }

    function test_refusesStringsThatAnotherReaderMightEndElsewhere() public {
        bytes memory bad = bytes("\x5c\x00\x1f\x7f\x80\xff");
        for (uint256 i; i < bad.length; ++i) {
            string memory letter = string(abi.encodePacked(bad[i]));
            refusesWith(
                sgx().replace("Early Micro", string.concat("Early", letter)), IntelJson.IntelJson_BadCharacter.selector
            );
            refusesWith(
                sgx().replace("SA-00615", string.concat("SA-0061", letter)), IntelJson.IntelJson_BadCharacter.selector
            );
        }
    }

    /// @dev Strings are read 32 bytes at a time: only these lengths end where the document does.
    function test_refusesALastStringThatIsNeverClosed() public {
        string[4] memory marks = ['"category":"', '"type":"', '"tcbStatus":"', '"advisoryIDs":["'];
        for (uint256 i; i < marks.length; ++i) {
            for (uint256 length; length <= 96; length += 32) {
                vm.expectRevert(
                    abi.encodeWithSelector(IntelJson.IntelJson_Unexpected.selector, bytes32(0), bytes32('"'))
                );
                parser.tcbInfo(cutAfter(sgx(), marks[i], length));
                refusesWith(string(cutAfter(sgx(), marks[i], length + 1)), IntelJson.IntelJson_BadCharacter.selector);
            }
        }
    }

    function cutAfter(string memory document, string memory mark, uint256 letters) private pure returns (bytes memory) {
        bytes memory text = new bytes(letters);
        for (uint256 i; i < letters; ++i) {
            text[i] = "a";
        }
        return bytes.concat(bytes(document.before(mark)), bytes(mark), text);
    }

    // Fuzzing

    function testFuzz_readsAnyBytesInHexadecimal(bytes32 value, bytes6 fmspc, uint256 upper) public view {
        string memory document = qe()
            .replace(
                "8C4F5775D796503E96137F77C68A829A0056AC8DED70140B081B094490C57BFF",
                hexOf(abi.encodePacked(value), upper)
            ).replace("11000000000000000000000000000000", hexOf(abi.encodePacked(bytes16(value)), ~upper));
        IDcapCollateral.QeIdentity memory found = parser.qeIdentity(bytes(document));
        assertEq(found.mrSigner, value);
        assertEq(bytes32(found.attributes), bytes32(bytes16(value)));
        string memory info = sgx().replace("00A067110000", hexOf(abi.encodePacked(fmspc), upper));
        assertEq(bytes32(parser.tcbInfo(bytes(info)).fmspc), bytes32(fmspc));
    }

    function testFuzz_readsAnyNumbers(uint8 svn, uint16 pceSvn, uint32 evaluation) public view {
        string memory document = string.concat(
                sgx().before('{"tcb":'),
                '{"tcb":{"sgxtcbcomponents":[{"svn":',
                vm.toString(uint256(svn)),
                ',"category":"x"},{"svn":',
                vm.toString(uint256(svn)),
                "},",
                ZEROS,
                '],"pcesvn":',
                vm.toString(uint256(pceSvn)),
                '},"tcbDate":"2024-03-13T00:00:00Z","tcbStatus":"UpToDate"}]}'
            ).replace("Number\":17", string.concat("Number\":", vm.toString(uint256(evaluation))));
        IDcapCollateral.TcbInfo memory info = parser.tcbInfo(bytes(document));
        assertEq(info.evaluation, evaluation);
        bytes32 components = bytes32(bytes2(uint16(svn) << 8 | svn));
        assertEq(
            info.levels,
            keccak256(abi.encode(components, uint256(pceSvn), TcbStatus.UP_TO_DATE, uint256(ISSUED), bytes32(0)))
        );
    }

    /// @dev One byte of a valid document becomes another: either it is refused, or it reads as another document.
    function testFuzz_noByteIsIgnored(uint256 place, uint8 with) public view {
        bytes memory document = bytes(qe());
        place = bound(place, 0, document.length - 1);
        bytes1 old = document[place];
        if (old == bytes1(with)) return;
        bytes32 valid = keccak256(abi.encode(parser.qeIdentity(document)));
        document[place] = bytes1(with);
        try parser.qeIdentity(document) returns (IDcapCollateral.QeIdentity memory found) {
            bool caseOnly = uint8(old) | 0x20 == with | 0x20;
            bool advisory = place > document.length - 24;
            assertTrue(caseOnly || advisory || keccak256(abi.encode(found)) != valid, "a byte was ignored");
        } catch {}
    }

    function hexOf(bytes memory value, uint256 upper) private pure returns (string memory) {
        bytes memory text = new bytes(2 * value.length);
        for (uint256 i; i < text.length; ++i) {
            uint256 digit = uint8(value[i / 2]) >> (i % 2 == 0 ? 4 : 0) & 15;
            text[i] = bytes1(uint8(digit < 10 ? 0x30 + digit : (upper >> i & 1 == 0 ? 0x57 : 0x37) + digit));
        }
        return string(text);
    }

    function moduleDigest(uint8 version, bytes8 attributes, uint256[] memory levels) private pure returns (bytes32) {
        bytes memory mrSigner =
            hex"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        return
            keccak256(abi.encode(IDcapCollateral.TdxModule(version, mrSigner, attributes, 0xffffffffffffffff, levels)));
    }

    function levelOf(uint8 first, uint8 second) private pure returns (bytes32) {
        return bytes32(bytes.concat(bytes16(hex"0707"), bytes2(uint16(first) << 8 | second)));
    }

    function refusesTcb(string memory document, bytes32 wanted) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IntelJson.IntelJson_Unexpected.selector, bytes32(bytes('ABC","version":3,"issueDate":"20')), wanted
            )
        );
        parser.tcbInfo(bytes(document));
    }

    function refusesUnexpected(string memory document) private {
        refusesWith(document, IntelJson.IntelJson_Unexpected.selector);
    }

    function refusesQe(string memory document) private {
        vm.expectPartialRevert(IntelJson.IntelJson_Unexpected.selector);
        parser.qeIdentity(bytes(document));
    }

    function refusesWith(string memory document, bytes4 reason) private {
        vm.expectPartialRevert(reason);
        parser.tcbInfo(bytes(document));
    }

    function refusesTooLarge(string memory document, uint256 got, uint256 max) private {
        vm.expectRevert(abi.encodeWithSelector(IntelJson.IntelJson_TooLarge.selector, got, max));
        parser.tcbInfo(bytes(document));
    }

    function refusesNotDescending(string memory document, uint256 index) private {
        vm.expectRevert(abi.encodeWithSelector(IntelJson.IntelJson_NotDescending.selector, index));
        parser.tcbInfo(bytes(document));
    }

    function refusesDuplicate(string memory document, uint256 version) private {
        vm.expectRevert(abi.encodeWithSelector(IntelJson.IntelJson_DuplicateModule.selector, version));
        parser.tcbInfo(bytes(document));
    }
}
