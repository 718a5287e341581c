"""Names of the ESP32-C3's ROM functions: where each begins, for providing it and for saying which one is missing.

Facts of ESP-IDF's linker scripts (`esp_rom/esp32c3/ld/esp32c3.rom*.ld`): the ROM begins with a table in which the
functions lie four bytes apart. The functions of the radio are known by their range. Does not know what a function does.
"""

from __future__ import annotations

from types import MappingProxyType

_GROUPS = {
    0x40000018: """
        rtc_get_reset_reason analog_super_wdt_reset_happened jtag_cpu_reset_happened rtc_get_wakeup_cause
        rtc_boot_control rtc_select_apb_bridge rtc_unhold_all_pads set_rtc_memory_crc cacl_rtc_memory_crc
        ets_is_print_boot ets_printf ets_install_putc1 ets_install_uart_printf ets_install_putc2 ets_delay_us
        ets_get_stack_info ets_install_lock ets_backup_dma_copy ets_apb_backup_init_lock_func UartRxString
        uart_tx_one_char uart_tx_one_char2 uart_rx_one_char uart_rx_one_char_block uart_rx_readbuff uartAttach
        uart_tx_flush uart_tx_wait_idle uart_div_modify multofup software_reset software_reset_cpu
        assist_debug_clock_enable assist_debug_record_enable clear_super_wdt_reset_flag disable_default_watchdog
        send_packet recv_packet GetUartDevice UartDwnLdProc Uart_Init ets_set_user_start mz_adler32 mz_crc32 mz_free
        tdefl_compress tdefl_compress_buffer tdefl_compress_mem_to_heap tdefl_compress_mem_to_mem
        tdefl_compress_mem_to_output tdefl_get_adler32 tdefl_get_prev_return_status tdefl_init
        tdefl_write_image_to_png_file_in_memory tdefl_write_image_to_png_file_in_memory_ex tinfl_decompress
        tinfl_decompress_mem_to_callback tinfl_decompress_mem_to_heap tinfl_decompress_mem_to_mem jd_prepare
        jd_decomp esp_rom_spiflash_wait_idle esp_rom_spiflash_write_encrypted esp_rom_spiflash_write_encrypted_dest
        esp_rom_spiflash_write_encrypted_enable esp_rom_spiflash_write_encrypted_disable esp_rom_spiflash_erase_chip
        esp_rom_spiflash_erase_block esp_rom_spiflash_erase_sector esp_rom_spiflash_write esp_rom_spiflash_read
        esp_rom_spiflash_config_param esp_rom_spiflash_read_user_cmd esp_rom_spiflash_select_qio_pins
        esp_rom_spiflash_unlock esp_rom_spi_flash_auto_sus_res esp_rom_spi_flash_send_resume
        esp_rom_spi_flash_update_id esp_rom_spiflash_config_clk esp_rom_spiflash_config_readmode
        esp_rom_spiflash_read_status esp_rom_spiflash_read_statushigh esp_rom_spiflash_write_status
        esp_rom_spiflash_attach spi_flash_get_chip_size spi_flash_guard_set spi_flash_guard_get
        spi_flash_write_config_set spi_flash_write_config_get spi_flash_safe_write_address_func_set spi_flash_unlock
        spi_flash_erase_range spi_flash_erase_sector spi_flash_write spi_flash_read spi_flash_write_encrypted
        spi_flash_read_encrypted spi_flash_mmap_os_func_set spi_flash_mmap_page_num_init spi_flash_mmap
        spi_flash_mmap_pages spi_flash_munmap spi_flash_mmap_dump spi_flash_check_and_flush_cache
        spi_flash_mmap_get_free_pages spi_flash_cache2phys spi_flash_phys2cache spi_flash_disable_cache
        spi_flash_restore_cache spi_flash_cache_enabled spi_flash_enable_cache spi_cache_mode_switch
        spi_common_set_dummy_output spi_common_set_flash_cs_timing esp_enable_cache_flash_wrap SPIEraseArea SPILock
        SPIMasterReadModeCnfig SPI_Common_Command SPI_WakeUp SPI_block_erase SPI_chip_erase SPI_init
        SPI_page_program SPI_read_data SPI_sector_erase SPI_write_enable SelectSpiFunction SetSpiDrvs Wait_SPI_Idle
        spi_dummy_len_fix Disable_QMode Enable_QMode spi_flash_hal_poll_cmd_done spi_flash_hal_device_config
        spi_flash_hal_configure_host_io_mode spi_flash_hal_common_command spi_flash_hal_read
        spi_flash_hal_erase_chip spi_flash_hal_erase_sector spi_flash_hal_erase_block spi_flash_hal_program_page
        spi_flash_hal_set_write_protect spi_flash_hal_host_idle spi_flash_chip_generic_probe
        spi_flash_chip_generic_detect_size spi_flash_chip_generic_write spi_flash_chip_generic_write_encrypted
        spi_flash_chip_generic_set_write_protect spi_flash_common_write_status_16b_wrsr spi_flash_chip_generic_reset
        spi_flash_chip_generic_erase_chip spi_flash_chip_generic_erase_sector spi_flash_chip_generic_erase_block
        spi_flash_chip_generic_page_program spi_flash_chip_generic_get_write_protect
        spi_flash_common_read_status_16b_rdsr_rdsr2 spi_flash_chip_generic_read_reg spi_flash_chip_generic_yield
        spi_flash_generic_wait_host_idle spi_flash_chip_generic_wait_idle spi_flash_chip_generic_config_host_io_mode
        spi_flash_chip_generic_read spi_flash_common_read_status_8b_rdsr2 spi_flash_chip_generic_get_io_mode
        spi_flash_common_read_status_8b_rdsr spi_flash_common_write_status_8b_wrsr
        spi_flash_common_write_status_8b_wrsr2 spi_flash_common_set_io_mode spi_flash_chip_generic_set_io_mode
        spi_flash_chip_gd_get_io_mode spi_flash_chip_gd_probe spi_flash_chip_gd_set_io_mode memspi_host_read_id_hs
        memspi_host_read_status_hs memspi_host_flush_cache memspi_host_erase_chip memspi_host_erase_sector
        memspi_host_erase_block memspi_host_program_page memspi_host_read memspi_host_set_write_protect
        memspi_host_set_max_read_len memspi_host_read_data_slicer memspi_host_write_data_slicer
        esp_flash_chip_driver_initialized esp_flash_read_id esp_flash_get_size esp_flash_erase_chip
        rom_esp_flash_erase_region esp_flash_get_chip_write_protect esp_flash_set_chip_write_protect
        esp_flash_get_protectable_regions esp_flash_get_protected_region esp_flash_set_protected_region
        esp_flash_read esp_flash_write esp_flash_write_encrypted esp_flash_read_encrypted esp_flash_get_io_mode
        esp_flash_set_io_mode spi_flash_boot_attach spi_flash_dump_counters spi_flash_get_counters
        spi_flash_op_counters_config spi_flash_reset_counters esp_rom_newlib_init_common_mutexes memset memcpy
        memmove memcmp strcpy strncpy strcmp strncmp strlen strstr bzero _isatty_r sbrk isalnum isalpha isascii
        isblank iscntrl isdigit islower isgraph isprint ispunct isspace isupper toupper tolower toascii memccpy
        memchr memrchr strcasecmp strcasestr strcat strdup strchr strcspn strcoll strlcat strlcpy strlwr strncasecmp
        strncat strndup strnlen strrchr strsep strspn strtok_r strupr longjmp setjmp abs div labs ldiv qsort rand_r
        rand srand utoa itoa atoi atol strtol strtoul fflush _fflush_r _fwalk _fwalk_reent __smakebuf_r __swhatbuf_r
        __swbuf_r __swbuf __swsetup_r __sprint_r _fiprintf_r _fprintf_r _printf_common _printf_i _vfiprintf_r
        _vfprintf_r fiprintf fprintf printf vfiprintf vfprintf Cache_Get_ICache_Line_Size Cache_Get_Mode
        Cache_Address_Through_IBus Cache_Address_Through_DBus Cache_Set_Default_Mode
        Cache_Enable_Defalut_ICache_Mode ROM_Boot_Cache_Init Cache_Invalidate_ICache_Items Cache_Op_Addr
        Cache_Invalidate_Addr Cache_Invalidate_ICache_All Cache_Mask_All Cache_UnMask_Dram0
        Cache_Suspend_ICache_Autoload Cache_Resume_ICache_Autoload Cache_Start_ICache_Preload
        Cache_ICache_Preload_Done Cache_End_ICache_Preload Cache_Config_ICache_Autoload Cache_Enable_ICache_Autoload
        Cache_Disable_ICache_Autoload Cache_Enable_ICache_PreLock Cache_Disable_ICache_PreLock
        Cache_Lock_ICache_Items Cache_Unlock_ICache_Items Cache_Lock_Addr Cache_Unlock_Addr Cache_Disable_ICache
        Cache_Enable_ICache Cache_Suspend_ICache Cache_Resume_ICache Cache_Freeze_ICache_Enable
        Cache_Freeze_ICache_Disable Cache_Pms_Lock Cache_Ibus_Pms_Set_Addr Cache_Ibus_Pms_Set_Attr
        Cache_Dbus_Pms_Set_Addr Cache_Dbus_Pms_Set_Attr Cache_Set_IDROM_MMU_Size Cache_Get_IROM_MMU_End
        Cache_Get_DROM_MMU_End Cache_Owner_Init Cache_Occupy_ICache_MEMORY Cache_MMU_Init Cache_Ibus_MMU_Set
        Cache_Dbus_MMU_Set Cache_Count_Flash_Pages Cache_Travel_Tag_Memory Cache_Get_Virtual_Addr
        Cache_Get_Memory_BaseAddr Cache_Get_Memory_Addr Cache_Get_Memory_value ets_get_apb_freq
        ets_get_cpu_frequency ets_update_cpu_frequency ets_get_printf_channel ets_get_xtal_div ets_set_xtal_div
        ets_get_xtal_freq gpio_input_get gpio_matrix_in gpio_matrix_out gpio_output_disable gpio_output_enable
        gpio_output_set gpio_pad_hold gpio_pad_input_disable gpio_pad_input_enable gpio_pad_pulldown gpio_pad_pullup
        gpio_pad_select_gpio gpio_pad_set_drv gpio_pad_unhold gpio_pin_wakeup_disable gpio_pin_wakeup_enable
        gpio_bypass_matrix_in esprv_intc_int_set_priority esprv_intc_int_set_threshold esprv_intc_int_enable
        esprv_intc_int_disable esprv_intc_int_set_type intr_matrix_set ets_intr_lock ets_intr_unlock
        intr_handler_set ets_isr_attach ets_isr_mask ets_isr_unmask md5_vector MD5Init MD5Update MD5Final
        hmac_md5_vector hmac_md5 crc32_le crc32_be crc16_le crc16_be crc8_le crc8_be esp_crc8 ets_sha_enable
        ets_sha_disable ets_sha_get_state ets_sha_init ets_sha_process ets_sha_starts ets_sha_update ets_sha_finish
        ets_sha_clone ets_hmac_enable ets_hmac_disable ets_hmac_calculate_message ets_hmac_calculate_downstream
        ets_hmac_invalidate_downstream ets_jtag_enable_temporarily ets_aes_enable ets_aes_disable ets_aes_setkey
        ets_aes_block ets_bigint_enable ets_bigint_disable ets_bigint_multiply ets_bigint_modmult ets_bigint_modexp
        ets_bigint_wait_finish ets_bigint_getz ets_ds_enable ets_ds_disable ets_ds_start_sign ets_ds_is_busy
        ets_ds_finish_sign ets_ds_encrypt_params ets_aes_setkey_dec ets_aes_setkey_enc ets_mgf1_sha256
        ets_efuse_read ets_efuse_program ets_efuse_clear_program_registers ets_efuse_write_key
        ets_efuse_get_read_register_address ets_efuse_get_key_purpose ets_efuse_key_block_unused
        ets_efuse_find_unused_key_block ets_efuse_rs_calculate ets_efuse_count_unused_key_blocks
        ets_efuse_secure_boot_enabled ets_efuse_secure_boot_aggressive_revoke_enabled
        ets_efuse_cache_encryption_enabled ets_efuse_download_modes_disabled ets_efuse_find_purpose
        ets_efuse_flash_opi_5pads_power_sel_vddspi ets_efuse_force_send_resume ets_efuse_get_flash_delay_us
        ets_efuse_get_mac ets_efuse_get_spiconfig ets_efuse_usb_print_is_disabled ets_efuse_get_uart_print_channel
        ets_efuse_get_uart_print_control ets_efuse_get_wp_pad ets_efuse_legacy_spi_boot_mode_disabled
        ets_efuse_security_download_modes_enabled ets_efuse_set_timing ets_efuse_jtag_disabled
        ets_efuse_usb_download_mode_disabled ets_efuse_usb_module_disabled ets_efuse_usb_device_disabled
        ets_emsa_pss_verify ets_rsa_pss_verify ets_secure_boot_verify_bootloader_with_keys
        ets_secure_boot_verify_signature ets_secure_boot_read_key_digests ets_secure_boot_revoke_public_key_digest
        __absvdi2 __absvsi2 __adddf3 __addsf3 __addvdi3 __addvsi3 __ashldi3 __ashrdi3 __bswapdi2 __bswapsi2
        __clear_cache __clrsbdi2 __clrsbsi2 __clzdi2 __clzsi2 __cmpdi2 __ctzdi2 __ctzsi2 __divdc3 __divdf3 __divdi3
        __divsc3 __divsf3 __divsi3 __eqdf2 __eqsf2 __extendsfdf2 __ffsdi2 __ffssi2 __fixdfdi __fixdfsi __fixsfdi
        __fixsfsi __fixunsdfsi __fixunssfdi __fixunssfsi __floatdidf __floatdisf __floatsidf __floatsisf
        __floatundidf __floatundisf __floatunsidf __floatunsisf __gcc_bcmp __gedf2 __gesf2 __gtdf2 __gtsf2 __ledf2
        __lesf2 __lshrdi3 __ltdf2 __ltsf2 __moddi3 __modsi3 __muldc3 __muldf3 __muldi3 __mulsc3 __mulsf3 __mulsi3
        __mulvdi3 __mulvsi3 __nedf2 __negdf2 __negdi2 __negsf2 __negvdi2 __negvsi2 __nesf2 __paritysi2 __popcountdi2
        __popcountsi2 __powidf2 __powisf2 __subdf3 __subsf3 __subvdi3 __subvsi3 __truncdfsf2 __ucmpdi2 __udivdi3
        __udivmoddi4 __udivsi3 __udiv_w_sdiv __umoddi3 __umodsi3 __unorddf2 __unordsf2 usb_uart_rx_one_char
        usb_uart_rx_one_char_block usb_uart_tx_flush usb_uart_tx_one_char""",
    0x40001954: "rom_i2c_readReg rom_i2c_readReg_Mask rom_i2c_writeReg rom_i2c_writeReg_Mask",
    0x40001C38: "esp_flash_read_chip_id detect_spi_flash_chip esp_rom_spiflash_write_disable",
}
_RADIO = ((range(0x400008E0, 0x400015B0), "Bluetooth"), (range(0x400015B0, 0x40001C38), "Wi-Fi or the radio"))

ADDRESSES = MappingProxyType(
    {name: base + 4 * index for base, names in _GROUPS.items() for index, name in enumerate(names.split())}
)
"""Name -> where the function begins."""


def rom_name(address: int) -> str:
    """What begins at `address`, for a sentence; empty where nothing is known."""
    for base, names in _GROUPS.items():
        index, odd = divmod(address - base, 4)
        if 0 <= index < len(names.split()) and not odd:
            return names.split()[index]
    return next((f"for {what}" for addresses, what in _RADIO if address in addresses), "")
