"""Names of the ESP32-C3's ROM functions, for saying which one a program missed.

Facts of ESP-IDF's `esp32c3.rom.ld`: within a group the functions lie four bytes apart. Not complete: only the groups
that bootloaders and start-up code call. Does not know what a function does.
"""

from __future__ import annotations

_GROUPS = {
    0x40000018: """
        rtc_get_reset_reason analog_super_wdt_reset_happened jtag_cpu_reset_happened rtc_get_wakeup_cause
        rtc_boot_control rtc_select_apb_bridge rtc_unhold_all_pads set_rtc_memory_crc cacl_rtc_memory_crc
        ets_is_print_boot ets_printf ets_install_putc1 ets_install_uart_printf ets_install_putc2 ets_delay_us
        ets_get_stack_info ets_install_lock ets_backup_dma_copy ets_apb_backup_init_lock_func UartRxString
        uart_tx_one_char uart_tx_one_char2 uart_rx_one_char uart_rx_one_char_block uart_rx_readbuff uartAttach
        uart_tx_flush uart_tx_wait_idle uart_div_modify multofup software_reset software_reset_cpu
        assist_debug_clock_enable assist_debug_record_enable clear_super_wdt_reset_flag disable_default_watchdog
        send_packet recv_packet GetUartDevice UartDwnLdProc Uart_Init ets_set_user_start""",
    0x4000010C: """
        esp_rom_spiflash_wait_idle esp_rom_spiflash_write_encrypted esp_rom_spiflash_write_encrypted_dest
        esp_rom_spiflash_write_encrypted_enable esp_rom_spiflash_write_encrypted_disable esp_rom_spiflash_erase_chip
        esp_rom_spiflash_erase_block esp_rom_spiflash_erase_sector esp_rom_spiflash_write esp_rom_spiflash_read
        esp_rom_spiflash_config_param esp_rom_spiflash_read_user_cmd esp_rom_spiflash_select_qio_pins
        esp_rom_spiflash_unlock esp_rom_spi_flash_auto_sus_res esp_rom_spi_flash_send_resume
        esp_rom_spi_flash_update_id esp_rom_spiflash_config_clk esp_rom_spiflash_config_readmode
        esp_rom_spiflash_read_status esp_rom_spiflash_read_statushigh esp_rom_spiflash_write_status
        esp_rom_spiflash_attach spi_flash_get_chip_size""",
    0x40000354: "memset memcpy memmove memcmp strcpy strncpy strcmp strncmp strlen strstr bzero",
    0x400004B0: """
        Cache_Get_ICache_Line_Size Cache_Get_Mode Cache_Address_Through_IBus Cache_Address_Through_DBus
        Cache_Set_Default_Mode Cache_Enable_Defalut_ICache_Mode ROM_Boot_Cache_Init Cache_Invalidate_ICache_Items
        Cache_Op_Addr Cache_Invalidate_Addr Cache_Invalidate_ICache_All Cache_Mask_All Cache_UnMask_Dram0
        Cache_Suspend_ICache_Autoload Cache_Resume_ICache_Autoload Cache_Start_ICache_Preload
        Cache_ICache_Preload_Done Cache_End_ICache_Preload Cache_Config_ICache_Autoload Cache_Enable_ICache_Autoload
        Cache_Disable_ICache_Autoload Cache_Enable_ICache_PreLock Cache_Disable_ICache_PreLock
        Cache_Lock_ICache_Items Cache_Unlock_ICache_Items Cache_Lock_Addr Cache_Unlock_Addr Cache_Disable_ICache
        Cache_Enable_ICache Cache_Suspend_ICache Cache_Resume_ICache Cache_Freeze_ICache_Enable
        Cache_Freeze_ICache_Disable Cache_Pms_Lock Cache_Ibus_Pms_Set_Addr Cache_Ibus_Pms_Set_Attr
        Cache_Dbus_Pms_Set_Addr Cache_Dbus_Pms_Set_Attr Cache_Set_IDROM_MMU_Size Cache_Get_IROM_MMU_End
        Cache_Get_DROM_MMU_End Cache_Owner_Init Cache_Occupy_ICache_MEMORY Cache_MMU_Init Cache_Ibus_MMU_Set
        Cache_Dbus_MMU_Set Cache_Count_Flash_Pages Cache_Travel_Tag_Memory Cache_Get_Virtual_Addr
        Cache_Get_Memory_BaseAddr Cache_Get_Memory_Addr Cache_Get_Memory_value""",
    0x40000580: """
        ets_get_apb_freq ets_get_cpu_frequency ets_update_cpu_frequency ets_get_printf_channel ets_get_xtal_div
        ets_set_xtal_div ets_get_xtal_freq gpio_input_get gpio_matrix_in gpio_matrix_out gpio_output_disable
        gpio_output_enable gpio_output_set gpio_pad_hold gpio_pad_input_disable gpio_pad_input_enable
        gpio_pad_pulldown gpio_pad_pullup gpio_pad_select_gpio gpio_pad_set_drv gpio_pad_unhold
        gpio_pin_wakeup_disable gpio_pin_wakeup_enable gpio_bypass_matrix_in esprv_intc_int_set_priority
        esprv_intc_int_set_threshold esprv_intc_int_enable esprv_intc_int_disable esprv_intc_int_set_type
        intr_matrix_set ets_intr_lock ets_intr_unlock intr_handler_set ets_isr_attach ets_isr_mask ets_isr_unmask
        md5_vector MD5Init MD5Update MD5Final hmac_md5_vector hmac_md5 crc32_le crc32_be crc16_le crc16_be crc8_le
        crc8_be esp_crc8 ets_sha_enable ets_sha_disable ets_sha_get_state ets_sha_init ets_sha_process ets_sha_starts
        ets_sha_update ets_sha_finish ets_sha_clone ets_hmac_enable ets_hmac_disable ets_hmac_calculate_message
        ets_hmac_calculate_downstream ets_hmac_invalidate_downstream ets_jtag_enable_temporarily ets_aes_enable
        ets_aes_disable ets_aes_setkey ets_aes_block ets_bigint_enable ets_bigint_disable ets_bigint_multiply
        ets_bigint_modmult ets_bigint_modexp ets_bigint_wait_finish ets_bigint_getz ets_ds_enable ets_ds_disable
        ets_ds_start_sign ets_ds_is_busy ets_ds_finish_sign ets_ds_encrypt_params ets_aes_setkey_dec
        ets_aes_setkey_enc ets_mgf1_sha256 ets_efuse_read ets_efuse_program ets_efuse_clear_program_registers
        ets_efuse_write_key ets_efuse_get_read_register_address ets_efuse_get_key_purpose
        ets_efuse_key_block_unused ets_efuse_find_unused_key_block ets_efuse_rs_calculate
        ets_efuse_count_unused_key_blocks ets_efuse_secure_boot_enabled""",
}


def rom_name(address: int) -> str:
    """The function that begins at `address`; empty where no name is known."""
    for base, names in _GROUPS.items():
        index, odd = divmod(address - base, 4)
        if 0 <= index < len(names.split()) and not odd:
            return names.split()[index]
    return ""
